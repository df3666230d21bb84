"""Two processes that load the same data at once, as torchrun starts them: one prepares it, the other waits."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenas.data import cache_lock as module
from edgenas.data.cache_lock import cache_lock

# What takes long is a pause, and each time that it is done is a line of the log.
CHECK = """
import sys, time
from pathlib import Path
from edgenas.data import image_check, load_data

def read(path, real=image_check.read_image):
    with open("log", "a") as log:
        log.write(f"{path.name}\\n")
    time.sleep(0.02)
    return real(path)

image_check.read_image = read
print(load_data("photos/").sha256)
"""
MADE_UP = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from edgenas.data import imagenet, torchvision_sets

class Part:
    wnids, classes = ["n0", "n1"], [("a",), ("b",)]
    samples = [(f"{number}.jpg", number % 2) for number in range(8)]
    def __len__(self):
        return 8

def make(root, train=True, split="train", download=True):
    done = Path(root, f"done{split}")
    Path(root).mkdir(parents=True, exist_ok=True)
    if not done.exists():
        with open("log", "a") as log:
            log.write(f"{split}\\n")
        time.sleep(0.4)
        done.touch()
    images = np.zeros((4000, 4, 4, 3), np.uint8)
    return Part() if split == "val" or not download or "imagenet" in root else SimpleNamespace(
        data=images, targets=list(np.arange(4000) % 10), classes=[str(number) for number in range(10)])

fake = SimpleNamespace(datasets=SimpleNamespace(CIFAR10=make, ImageNet=make))
imagenet.import_torchvision = torchvision_sets.import_torchvision = lambda name: fake
imagenet._IMAGES, imagenet._CLASSES, imagenet._VALIDATION_IMAGES = {"train": 8, "val": 8}, 2, 2
"""


def run_twice(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str]]:
    """Run a program twice at once; return what both print, and the lines of their log, sorted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    started = [
        subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    printed = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    return printed, sorted((folder / "log").read_text().split())


def test_images_are_checked_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 40 images is read once by both together, and both find the same data set."""
    names = [f"{label}{number}.png" for label in "ab" for number in range(20)]
    for value, name in enumerate(names):
        (tmp_path / "photos" / name[0]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((5, 5), value, np.uint8)).save(tmp_path / "photos" / name[0] / name)
    printed, read = run_twice(CHECK, tmp_path, monkeypatch)
    assert read == sorted(names)
    assert len(set(printed)) == 1


@pytest.mark.parametrize(
    ("load", "made"),
    [("torchvision_sets.load_cifar10()", ["train"]), ("imagenet.load_imagenet()", ["train", "val"])],
)
def test_a_data_set_is_downloaded_or_unpacked_by_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: str, made: Sequence[str]
) -> None:
    """The second waits and finds it, with a made-up torchvision that counts."""
    _, found = run_twice(f"{MADE_UP}\n{load}\n", tmp_path, monkeypatch)
    assert found == made


def test_a_long_wait_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for is named; the lock is then had."""
    said: list[str] = []
    released = threading.Event()

    def hear(text: str) -> None:
        said.append(text)
        released.set()

    monkeypatch.setattr(module, "_SILENT_SECONDS", 0.0)
    monkeypatch.setattr(module, "say", hear)
    order: list[str] = []

    def wait() -> None:
        with cache_lock(tmp_path / "made"):
            order.append("second")

    with cache_lock(tmp_path / "made"):
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert released.wait(30)
        order.append("first")
    waiting.join(30)
    assert order == ["first", "second"]
    assert said == [f"{tmp_path / 'made'}: waits until another process has made it"]


def test_a_cache_that_cannot_be_written_needs_no_lock(tmp_path: Path) -> None:
    """Files that lie there are used as before: here the place of the folder is taken by a file."""
    (tmp_path / "cache").write_text("")
    with cache_lock(tmp_path / "cache" / "made"):
        assert (tmp_path / "cache").read_text() == ""
