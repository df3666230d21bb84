"""Folders of images as data sets: which images are in which part, how they are read, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenas.data import DataSet, load_data
from edgenas.data.preprocess import preprocess
from edgenas.errors import UsageError

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write random images into the folders of a data set, so many in each, of different sizes."""

    def write(**counts: int) -> Path:
        generator = np.random.default_rng(len(counts))
        for name, count in counts.items():
            folder = tmp_path / "photos" / name.replace("__", "/")
            folder.mkdir(parents=True)
            for number in range(count):
                height, width = generator.integers(20, 60, 2)
                pixels = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:03}.png")
        return tmp_path / "photos"

    return write


def _names(data: DataSet, part: str) -> set[str]:
    images = getattr(data, part).images
    return {str(path.relative_to(data.name)) for path in images.paths}


def test_classes_of_one_folder_are_split(make: Make) -> None:
    """Of 20 images of each class 16 are for training, 2 for validation and 2 for testing, none twice."""
    data = load_data(str(make(cat=20, dog=20)))
    assert data.labels == ("cat", "dog")
    for part, count in (("train", 16), ("validation", 2), ("test", 2)):
        assert np.bincount(getattr(data, part).labels).tolist() == [count, count]
    parts = [_names(data, part) for part in ("train", "validation", "test")]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 40


def test_the_split_does_not_change(make: Make) -> None:
    """The same folder gives the same parts again."""
    folder = str(make(cat=20, dog=20))
    assert _names(load_data(folder), "test") == _names(load_data(folder), "test")


def test_a_folder_that_is_split_keeps_its_parts(make: Make) -> None:
    """Images of test are for testing; without val, a tenth of each class of train is for validation."""
    data = load_data(str(make(train__cat=20, train__dog=10, test__cat=3, test__dog=3)))
    assert {name.partition("/")[0] for name in _names(data, "test")} == {"test"}
    assert np.bincount(data.validation.labels).tolist() == [2, 1]
    assert len(data.train) == 27


def test_a_folder_may_have_a_part_for_validation(make: Make) -> None:
    """Images of val are for validation."""
    data = load_data(str(make(train__a=4, train__b=4, val__a=2, val__b=2, test__a=2, test__b=2)))
    assert {name.partition("/")[0] for name in _names(data, "validation")} == {"val"}
    assert len(data.train) == 8


def test_inputs_are_those_of_a_bundle(make: Make) -> None:
    """Images of any size become what the preprocessing that ships with a model makes of them."""
    data = load_data(str(make(cat=10, dog=10)))
    inputs = data.to_inputs(data.train.images[:3], (24, 24))
    assert inputs.shape == (3, 3, 24, 24)
    settings = data.preprocessing.to_settings((24, 24))
    for index, expected in enumerate(inputs):
        np.testing.assert_array_equal(preprocess(data.train.images[index], settings)[0], expected)


def test_augmentation_follows_from_its_generator(make: Make) -> None:
    """Equal generators give equal bits, however many threads read the files; others give others."""
    data = load_data(str(make(cat=10, dog=10)))
    images = data.train.images[:8]
    first, again, other = (
        data.to_augmented_inputs(images, (24, 24), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first.shape == (8, 3, 24, 24)
    assert first.equal(again)
    assert not first.equal(other)


def test_the_name_is_the_folders_place(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is made absolute, so that later commands find it from anywhere."""
    folder = make(cat=10, dog=10)
    monkeypatch.chdir(folder.parent)
    assert load_data("photos").name == load_data("./photos").name == str(folder.resolve())


def test_rare_classes_are_said(make: Make) -> None:
    """A class with a twentieth of another's images is named, with what to do."""
    data = load_data(str(make(cat=200, dog=10)))
    assert data.warnings == (
        "class cat has 160 training images and dog has 8: accuracy says little of rare classes; add images of them,"
        " or remove some of the others",
    )


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ({}, "is no folder and no data set's name"),
        ({"cat": 3}, "needs at least two classes, each a folder of images, but has 1"),
        ({"cat": 3, "dog": 0}, "class dog has no image; add some, or remove its folder"),
        ({"train__a": 3, "train__b": 3}, "has a folder train and none named test"),
        ({"train__a": 3, "train__b": 3, "test__c": 1}, r"/test: class c has no training images"),
    ],
)
def test_a_folder_without_what_training_needs_is_refused(make: Make, counts: dict[str, int], problem: str) -> None:
    """The message names the folder, the rule and the remedy."""
    with pytest.raises(UsageError, match=problem):
        load_data(str(make(**counts)))


def test_images_that_cannot_be_read_are_named(make: Make) -> None:
    """Of a cut file, a text and a healthy image the first two are named, before anything is trained."""
    folder = make(cat=3, dog=3)
    whole = (folder / "cat/000.png").read_bytes()
    (folder / "cat/000.png").write_bytes(whole[: len(whole) // 2])
    (folder / "dog/001.png").write_text("no image")
    with pytest.raises(UsageError, match=r"2 of 6 images cannot be read: .*cat/000.png .*dog/001.png .*; remove or"):
        load_data(str(folder))


def test_a_file_that_was_changed_is_checked_again(make: Make) -> None:
    """What was found of images is remembered until one of them changes."""
    folder = make(cat=10, dog=10)
    load_data(str(folder))
    (folder / "cat/000.png").write_text("no image any more")
    with pytest.raises(UsageError, match=r"1 of 20 images cannot be read"):
        load_data(str(folder))


def test_an_image_in_training_and_test_is_refused(make: Make) -> None:
    """The same content under two names would make the final accuracy too good."""
    folder = make(train__a=3, train__b=3, test__a=2, test__b=2)
    (folder / "test/a/000.png").write_bytes((folder / "train/a/001.png").read_bytes())
    with pytest.raises(
        UsageError, match=r"train/a/001.png and test/a/000.png are one image in two parts or classes; remove"
    ):
        load_data(str(folder))


def test_an_image_in_two_classes_is_refused(make: Make) -> None:
    """One of its labels is wrong."""
    folder = make(cat=10, dog=10)
    (folder / "dog/000.png").write_bytes((folder / "cat/001.png").read_bytes())
    with pytest.raises(
        UsageError, match=r"cat/001.png and dog/000.png are one image in two parts or classes; remove one of"
    ):
        load_data(str(folder))


def test_an_image_of_absurd_size_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of few bytes may claim more pixels than memory holds: it is named before it is decoded."""
    folder = make(cat=10, dog=10)
    monkeypatch.setattr("edgenas.data.images._MAX_PIXELS", 20 * 20 - 1)
    with pytest.raises(UsageError, match=r"pixels, more than 399"):
        load_data(str(folder))
