"""Folders of images as data sets: which images are in which part, how they are read, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from edgenas.data import DataSet, ImagePaths, load_data
from edgenas.data.images import read_image
from edgenas.data.preprocess import preprocess
from edgenas.errors import EdgeNASError, UsageError

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


def test_a_class_may_be_called_train(make: Make) -> None:
    """Images lie in it, not folders of images, and other classes beside it."""
    data = load_data(str(make(bus=10, car=10, train=10)))
    assert data.labels == ("bus", "car", "train")
    assert data.warnings == ()
    assert len(data.train) == 24


def test_a_class_may_be_called_test_too(make: Make) -> None:
    """Beside another class; empty folders below train do not make a part of it."""
    folder = make(bus=10, test=10, train=10)
    (folder / "train/later").mkdir()
    assert load_data(str(folder)).labels == ("bus", "test", "train")


def test_folders_beside_the_parts_are_said(make: Make) -> None:
    """They are left out, and so is the second folder for validation."""
    folder = make(train__a=4, train__b=4, test__a=2, test__b=2, val__a=1, val__b=1, valid__a=1, extra=3, more__a=2)
    data = load_data(str(folder))
    assert data.warnings == (
        "extra, more, valid: beside train and test, so left out; move images to be used below these",
    )
    assert len(data.train) + len(data.validation) + len(data.test) == 14


def test_files_of_other_formats_are_said(make: Make) -> None:
    """A photo in a format that is not read is left out and named; a hidden file is not."""
    folder = make(cat=20, dog=20)
    (folder / "cat" / "IMG_1.HEIC").write_bytes(b"x")
    (folder / "cat" / ".DS_Store").write_bytes(b"x")
    (line,) = load_data(str(folder)).warnings
    assert line.endswith("are left out (1): cat/IMG_1.HEIC; convert those to be used")
    assert ".jpg, .png" in line


@pytest.mark.parametrize(("most", "said"), [(99, False), (100, True)])
def test_ten_times_as_many_images_are_said(make: Make, most: int, said: bool) -> None:
    """Of parts that are given, nothing is split off: 99 or 100 training images against 10."""
    data = load_data(str(make(train__a=most, train__b=10, val__a=2, val__b=2, test__a=2, test__b=2)))
    assert bool(data.warnings) is said


def test_inputs_are_those_of_a_bundle(make: Make) -> None:
    """Images of any size become what the preprocessing that ships with a model makes of them."""
    data = load_data(str(make(cat=10, dog=10)))
    inputs = data.to_inputs(data.train.images[:3], (24, 24))
    assert inputs.shape == (3, 3, 24, 24)
    settings = data.preprocessing.to_settings((24, 24))
    for index, expected in enumerate(inputs):
        np.testing.assert_array_equal(preprocess(data.train.images[index], settings)[0], expected)


def test_batches_hold_all_images_in_order(make: Make) -> None:
    """150 images come as 128 and 22, each as alone."""
    data = load_data(str(make(cat=100, dog=90)))
    images = data.train.images[:150]
    batches = list(data.to_batches(images, (8, 8)))
    assert [len(batch) for batch in batches] == [128, 22]
    np.testing.assert_array_equal(np.concatenate(batches), data.to_inputs(images, (8, 8)))


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


def test_threads_change_no_bit(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread and seven make the same batch, with everything random that there is."""
    choices = {"crop": [0.3, 1.0], "flip": True, "randaugment": {}, "erasing": 0.5, "mixup": 0.4}
    data = load_data({"name": str(make(cat=20, dog=20)), "augmentation": choices})
    batches = []
    for threads in (1, 7):
        monkeypatch.setattr("edgenas.data.images._count_threads", lambda threads=threads: threads)
        batches.append(data.to_training_batch(np.arange(30), (24, 24), np.random.default_rng(0)))
    assert all(map(torch.equal, *batches))


def test_rare_classes_are_said(make: Make) -> None:
    """A class with a twentieth of another's images is named, with what to do."""
    data = load_data(str(make(cat=200, dog=10)))
    assert data.warnings == (
        "class cat has 160 training images and dog has 8: accuracy says little of rare classes; add images of them,"
        " or remove some of the others",
    )


def test_classes_without_a_test_image_are_said(make: Make) -> None:
    """Three images of a class are too few for three parts."""
    data = load_data(str(make(cat=20, dog=3)))
    assert data.warnings == ("dog: no test image, so that accuracy says nothing of them; add images",)


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ({}, "is no folder and no data set's name"),
        ({"cat": 3}, "needs at least two classes, each a folder of images, but has 1"),
        ({"cat": 3, "dog": 0}, r"class dog has no image \(.bmp, .jpeg, .jpg, .png, .ppm, .webp\); add some, or remove"),
        ({"cat": 0, "dog": 3}, "class cat has no image"),
        ({"train__a": 3, "train__b": 3}, "has a folder train and none named test"),
        ({"train__a": 3, "train__b": 3, "test__a": 1, "test__b": 0}, r"/test: class b has no image"),
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


def test_bad_images_are_left_out_where_that_is_wanted(make: Make) -> None:
    """They are counted and the first named; the rest is a data set."""
    folder = make(cat=20, dog=20)
    for number in range(5):
        (folder / f"cat/00{number}.png").write_text("no image")
    data = load_data({"name": str(folder), "skip_bad": True})
    assert len(data.train) + len(data.validation) + len(data.test) == 35
    (line,) = data.warnings
    assert line.startswith("5 of 40 images cannot be read: cat/000.png (cannot identify image file")
    assert line.endswith(" and 2 more; they are left out")


def test_a_class_of_bad_images_only_is_empty(make: Make) -> None:
    """What is left must still be trainable."""
    folder = make(cat=3, dog=1)
    (folder / "dog/000.png").write_text("no image")
    with pytest.raises(UsageError, match=r"class dog has no image"):
        load_data({"name": str(folder), "skip_bad": True})


def test_the_digest_tells_whether_images_are_the_same(make: Make) -> None:
    """With one more, or one that was repaired, others would be for testing: a run's data set is refused then."""
    folder = make(cat=20, dog=20)
    whole = (folder / "cat/001.png").read_bytes()
    (folder / "cat/001.png").write_text("no image")
    recipe = load_data({"name": str(folder), "skip_bad": True}).recipe
    assert load_data(recipe).recipe == recipe
    (folder / "cat/001.png").write_bytes(whole)
    with pytest.raises(UsageError, match=r"its images or their split are not those of before; put them back"):
        load_data(recipe)


def test_copies_in_a_class_are_left_out(make: Make) -> None:
    """A split would put one for training and its copy for testing."""
    folder = make(cat=20, dog=20)
    for number in range(4):
        (folder / f"dog/copy{number}.png").write_bytes((folder / "dog/007.png").read_bytes())
    data = load_data(str(folder))
    assert np.bincount(data.train.labels).tolist() == [16, 16]
    named = "dog/copy0.png, dog/copy1.png, dog/copy2.png and 1 more"
    assert data.warnings == (f"copies of other images in their class are left out (4): {named}",)


def test_images_of_more_than_bytes_are_refused(make: Make) -> None:
    """Pillow would make an image of 16 bits a channel white."""
    folder = make(cat=3, dog=3)
    Image.fromarray(np.full((20, 20), 40_000, np.uint16)).save(folder / "cat/000.png")
    with pytest.raises(UsageError, match=r"cat/000.png \(it has more than 8 bits a channel; save it with 8\)"):
        load_data(str(folder))


def test_an_image_that_is_gone_in_mid_training_is_named(make: Make) -> None:
    """One line with the file, not Pillow's exception."""
    data = load_data(str(make(cat=10, dog=10)))
    assert isinstance(data.train.images, ImagePaths)
    data.train.images.paths[0].unlink()
    with pytest.raises(EdgeNASError, match=r"000.png: cannot be read any more .*No such file"):
        data.to_training_batch(np.arange(4), (16, 16), np.random.default_rng(0))


def test_only_what_changed_is_read_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twenty files that were checked and two that are new or changed, two are read."""
    folder = make(cat=10, dog=10)
    load_data(str(folder))
    read: list[str] = []

    def record(path: Path) -> np.ndarray:
        read.append(path.name)
        return read_image(path)

    monkeypatch.setattr("edgenas.data.image_check.read_image", record)
    for name in ("new.png", "003.png"):
        Image.fromarray(np.full((30, 30), len(name), np.uint8)).save(folder / "cat" / name)
    load_data(str(folder))
    assert sorted(read) == ["003.png", "new.png"]


@pytest.mark.parametrize("text", ["", "[]", '{"pillow": 1}', "{", '{"pillow": "VERSION", "images": {"PATH": [1, 2]}}'])
def test_a_damaged_memory_is_made_again(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Whatever the file of checked images holds, all are read again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = make(cat=10, dog=10)
    expected = load_data(str(folder)).sha256
    (kept,) = (tmp_path / "cache").rglob("*.json")
    kept.write_text(text.replace("VERSION", PIL.__version__).replace("PATH", str(folder / "cat/000.png")))
    assert load_data(str(folder)).sha256 == expected


def test_an_interrupted_check_goes_on(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before it ended is not read again, and a long check says how far it is."""
    folder = make(cat=10, dog=10)
    monkeypatch.setattr("edgenas.data.image_check._CHUNK", 4)
    monkeypatch.setattr("edgenas.data.image_check._SECONDS", -1.0)
    said: list[str] = []
    monkeypatch.setattr("edgenas.data.image_check.say", said.append)
    left = 10

    def stop(path: Path) -> np.ndarray:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return read_image(path)

    monkeypatch.setattr("edgenas.data.image_check.read_image", stop)
    with pytest.raises(KeyboardInterrupt):
        load_data(str(folder))
    assert said == [f"{folder}: checked {count} of 20 images, which is done once" for count in (4, 8)]
    left = 12
    load_data(str(folder))
    assert left == 0


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
