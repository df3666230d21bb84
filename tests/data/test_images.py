"""Reading of image files."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from edgenas.data.images import map_in_threads, read_image

ORIENTATION = 0x0112  # of EXIF
# A wide picture whose left half is white: rows of (height, width).
WIDE = np.repeat(np.array([[255] * 4 + [0] * 4], np.uint8), 4, axis=0)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [(1, WIDE), (2, WIDE[:, ::-1]), (3, WIDE[::-1, ::-1]), (6, np.rot90(WIDE, -1)), (8, np.rot90(WIDE, 1))],
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_photo_of_a_turned_camera_is_read_upright(
    tmp_path: Path, orientation: int, upright: np.ndarray, mode: str
) -> None:
    """Orientation 6 means: turn by 90 degrees clockwise to show it; 8 the other way; 3 by 180; 2 is mirrored (EXIF)."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(WIDE).save(tmp_path / "photo.png", exif=exif)
    image = read_image(tmp_path / "photo.png", mode)
    expected = upright if mode == "L" else np.repeat(upright[..., None], 3, axis=2)
    np.testing.assert_array_equal(image, expected)


def test_damaged_exif_data_spoil_no_photo(tmp_path: Path) -> None:
    """Pixels are intact, so the photo is read as it is stored."""
    Image.fromarray(WIDE).save(tmp_path / "photo.jpg", exif=b"Exif\0\0no TIFF header", quality=100)
    np.testing.assert_allclose(read_image(tmp_path / "photo.jpg", "L"), WIDE, atol=2)


def test_a_photo_of_several_pictures_is_read(tmp_path: Path) -> None:
    """Phones write JPEG files with a second picture behind the first (MPO), which is left out."""
    first = Image.fromarray(WIDE)
    first.save(tmp_path / "photo.jpg", format="MPO", save_all=True, append_images=[first.rotate(180)], quality=100)
    np.testing.assert_allclose(read_image(tmp_path / "photo.jpg", "L"), WIDE, atol=2)


def test_a_file_that_would_start_a_program_is_not_read(tmp_path: Path) -> None:
    """PostScript under the name of a photo, which Pillow hands to Ghostscript."""
    Image.fromarray(WIDE).save(tmp_path / "photo.jpg", format="EPS")
    with pytest.raises(UnidentifiedImageError):
        read_image(tmp_path / "photo.jpg")


@pytest.mark.parametrize(("cores", "processes", "threads"), [(6, None, 6), (6, "2", 3), (3, "2", 1), (2, "4", 1)])
def test_threads_share_the_usable_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes: str | None, threads: int
) -> None:
    """Of the cores that the process may run on each of torchrun's processes on the machine takes its part.

    As many items as threads meet, so no fewer work; of more items no more than these are seen.
    """
    monkeypatch.setattr("edgenas.data.images.os.sched_getaffinity", lambda process: set(range(cores)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if processes:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    meeting = threading.Barrier(threads, timeout=30)

    def work(item: int) -> int:
        meeting.wait()
        return threading.get_ident()

    assert len(set(map_in_threads(work, range(threads * 3)))) == threads


def test_threads_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second batch is read by the thread of the first, here the only one."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")
    first, second = (map_in_threads(lambda _: threading.current_thread(), range(3)) for _ in range(2))
    assert len({*first, *second}) == 1


def test_a_forked_process_has_threads_of_its_own() -> None:
    """Those of its parent do not exist in it: it would wait for ever."""
    code = (
        "import os\nfrom edgenas.data.images import map_in_threads\nmap_in_threads(abs, [-1])\n"
        "child = os.fork()\nif not child:\n    os._exit(map_in_threads(abs, [-7])[0])\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "7\n"
