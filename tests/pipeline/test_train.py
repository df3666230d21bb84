"""The step that trains: what is random of its images resumes to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenas import MobileNetV3, Run
from edgenas.errors import RunError
from edgenas.pipeline.progress import Bar, Silent
from edgenas.space import Stage

SPACE = MobileNetV3(
    width=0.25, resolutions=(12, 16), classes=2, kernel_sizes=(3, 5), expand_ratios=(2,), depths=(1,),
    stem_stride=1, stages=(Stage(32, 2, "relu", False),), head=(32, 32),
)  # fmt: skip
PHASE = {"learning_rate": 0.05, "kernel_sizes": 2, "distill": False}
SCHEDULE = {
    "name": "tiny",
    "batch_size": 16,
    "phases": [{"name": "one", "epochs": 2, **PHASE}, {"name": "two", "epochs": 1, **PHASE}],
}
CHOICES = {"crop": [0.3, 1.0], "flip": True, "randaugment": {}, "erasing": 0.5, "mixup": 0.4}


class Interrupted(Silent):
    """Progress that raises KeyboardInterrupt at a step."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._left = at

    @contextmanager
    def step(self, name: str, total: float) -> Iterator[Bar]:
        def bar(done: float, note: str = "") -> None:
            self._left -= 1
            if not self._left:
                raise KeyboardInterrupt

        yield bar


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of 30 images of different sizes; synthetic."""
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 256, (*rng.integers(20, 40, 2), 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number:02}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("at", [1, 4, 8])
def test_training_with_all_that_is_random_resumes_to_the_bit(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Interrupted at a step of either phase and begun again, with other numbers of threads that read images."""
    monkeypatch.setattr("edgenas.ofa.training.CHECKPOINT_SECONDS", 0.0)
    data = {"name": str(photos), "augmentation": CHOICES}
    whole = Run(tmp_path / "whole", SPACE, progress=Silent())
    whole.train(data, SCHEDULE)
    monkeypatch.setattr("edgenas.data.images._count_threads", lambda: 5)
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path / "broken", SPACE, progress=Interrupted(at)).train(data, SCHEDULE)
    broken = Run(tmp_path / "broken", SPACE, progress=Silent())
    broken.train(data, SCHEDULE)
    assert broken.folder.checkpoint.read_bytes() == whole.folder.checkpoint.read_bytes()


def test_another_augmentation_is_another_training(photos: Path, tmp_path: Path) -> None:
    """A run does not go on with other choices."""
    run = Run(tmp_path / "run", SPACE, progress=Silent())
    run.train({"name": str(photos), "augmentation": CHOICES}, SCHEDULE)
    with pytest.raises(RunError, match=r"was trained with another data"):
        run.train({"name": str(photos), "augmentation": {**CHOICES, "mixup": 0.1}}, SCHEDULE)


def test_a_folder_that_changed_is_another_training(photos: Path, tmp_path: Path) -> None:
    """One more image would move others between training and test."""
    run = Run(tmp_path / "run", SPACE, progress=Silent())
    run.train(str(photos), SCHEDULE)
    Image.new("RGB", (20, 20)).save(photos / "cat/new.png")
    with pytest.raises(RunError, match=r"was trained with another data"):
        run.train(str(photos), SCHEDULE)
