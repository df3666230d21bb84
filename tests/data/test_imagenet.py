"""ImageNet: a made-up copy of three classes in torchvision's layout, and what is said without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgenas.data import ImagePaths, load_data
from edgenas.errors import UsageError

CLASSES = {"n01": ("tench", "Tinca tinca"), "n02": ("crane",), "n03": ("crane", "derrick")}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the archives, unpacked: of each class ten images for training and two for testing; synthetic."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("edgenas.data.imagenet._IMAGES", {"train": 30, "val": 6})
    monkeypatch.setattr("edgenas.data.imagenet._CLASSES", 3)
    monkeypatch.setattr("edgenas.data.imagenet._VALIDATION_IMAGES", 3)
    root = tmp_path / "edgenas/data/imagenet"
    rng = np.random.default_rng(0)
    for part, count in (("train", 10), ("val", 2)):
        for wnid in CLASSES:
            (root / part / wnid).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / wnid / f"{wnid}_{number}.JPEG")
    torch.save((CLASSES, ["n01", "n02", "n03"] * 2), root / "meta.bin")  # as torchvision makes it of the devkit
    return root


def test_images_stay_in_their_files(folder: Path) -> None:
    """A tenth of the training images is for validation, torchvision's validation images are for testing."""
    data = load_data("imagenet")
    for part, count in (("train", 9), ("validation", 1), ("test", 2)):
        assert np.bincount(getattr(data, part).labels).tolist() == [count] * 3
    assert isinstance(data.test.images, ImagePaths)
    assert {path.parent.parent for path in data.test.images.paths} == {folder / "val"}
    assert data.to_inputs(data.test.images[:2], (32, 32)).shape == (2, 3, 32, 32)


def test_classes_of_one_word_are_told_apart(folder: Path) -> None:
    """Two classes are called crane: both get their WordNet id."""
    assert load_data("imagenet").labels == ("tench", "crane (n02)", "crane (n03)")


def test_a_folder_that_was_unpacked_in_part_is_refused(folder: Path) -> None:
    """torchvision takes what an interrupted unpacking left; its images are counted here."""
    next((folder / "train/n02").iterdir()).unlink()
    with pytest.raises(UsageError, match=r"imagenet/train has 29 images of 3 classes, not 30 of 3; remove it"):
        load_data("imagenet")


def test_missing_archives_are_named_with_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They cannot be downloaded: the message says which files go where."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"put ILSVRC2012_devkit_t12.tar.gz, .* into .*/edgenas/data/imagenet") as told:
        load_data("imagenet")
    assert "\n" not in str(told.value)
