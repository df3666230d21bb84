"""Data sets by name, as a mapping, and from a function of the user's own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from edgenas.data import Augmentation, DataSource, RandAugment, load_data
from edgenas.errors import UsageError

CODE = """
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgenas.data import Augmentation, DataSet, DataSetPreprocessing, ImagePaths, Split, load_data


def load() -> DataSet:
    return replace(load_data("digits"), name="anything")


def untyped():
    raise AssertionError("is never called")


def number() -> DataSet:
    return 3


def broken() -> DataSet:
    raise OSError("the server\\nis away")


def leaving() -> DataSet:
    raise SystemExit(4)


def shuffled() -> DataSet:
    data = load_data("digits")
    return replace(data, train=data.train.select(np.random.permutation(len(data.train))))


def of_files() -> DataSet:
    parts = []
    for part in ("train", "validation", "test"):
        paths = tuple(sorted(Path("photos", part).iterdir()))
        parts.append(Split(ImagePaths(paths), np.arange(len(paths)) % 2, np.arange(len(paths))))
    preprocessing = DataSetPreprocessing(3, 1 / 255, (0.5,) * 3, (0.25,) * 3)
    return DataSet("photos", ("a", "b"), preprocessing, *parts, augmentation=Augmentation(crop=(0.3, 1.0)))


def small_labels() -> DataSet:
    data = load_data("digits")
    train, validation, test = (
        replace(split, labels=split.labels.astype(kind))
        for split, kind in zip((data.train, data.validation, data.test), ("int32", "uint8", ">i8"), strict=True)
    )
    return replace(data, train=train, validation=validation, test=test)


def leaking() -> DataSet:
    data = load_data("digits")
    images = data.test.images.copy()
    images[[5, 8]] = data.train.images[[30, 2]]
    return replace(data, test=replace(data.test, images=images))


def leaking_files() -> DataSet:
    data = of_files()
    return replace(data, test=replace(data.test, images=data.train.images))


def unfit() -> DataSet:
    return replace(load_data("digits"), labels=())
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module in the working directory; returns its name, which is new to the process."""
    name = f"own_data_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


def test_a_function_of_the_working_directory_makes_a_data_set(code: str) -> None:
    """Its name is ``module:function``, whatever it calls itself, and is what makes it again."""
    data = load_data(f"{code}:load")
    assert data.name == f"{code}:load"
    assert data.class_count == 10
    assert isinstance(data.recipe, dict)
    assert load_data(data.recipe).recipe == data.recipe


def test_a_function_that_shuffles_anew_is_found(code: str) -> None:
    """Images of training would be tested on by the next command."""
    recipe = load_data(f"{code}:shuffled").recipe
    with pytest.raises(UsageError, match=r"its images or their split are not those of before"):
        load_data(recipe)


def test_an_image_in_training_and_test_is_refused(code: str) -> None:
    """Arrays are compared by their pixels, so that no accuracy is too good; the first pair is named."""
    named = r"image 30 of train and image 5 of test \(counted from 0\) are one image \(and 1 more\); remove"
    with pytest.raises(UsageError, match=f"^data {code}:leaking: {named}"):
        load_data(f"{code}:leaking")


def test_a_file_in_training_and_test_is_refused(code: str, photos: Path) -> None:
    """Files of a function are compared by their paths."""
    with pytest.raises(UsageError, match=r"image 0 of train and image 0 of test .* are one image .and 3 more"):
        load_data(f"{code}:leaking_files")


def test_labels_may_be_integers_of_any_type(code: str) -> None:
    """Torch's loss takes int64 alone, so they become that; a batch of them is trained on."""
    data = load_data(f"{code}:small_labels")
    for split in (data.train, data.validation, data.test):
        assert split.labels.dtype == np.dtype("int64")
    _, targets = data.to_training_batch(np.arange(4), (8, 8), np.random.default_rng(0))
    assert torch.nn.functional.cross_entropy(torch.zeros(4, 10), targets).item() == pytest.approx(np.log(10))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four images in each of three parts, for ``of_files``; synthetic."""
    rng = np.random.default_rng(0)
    for part in ("train", "validation", "test"):
        (tmp_path / "photos" / part).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (8, 9, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / part / f"{part}{number}.bmp")
    return tmp_path / "photos"


def test_a_file_that_is_missing_is_named(code: str, photos: Path) -> None:
    """Any but the first, which the check of the data set reads."""
    (photos / "train/train2.bmp").unlink()
    (photos / "train/train2.bmp").symlink_to("nowhere")
    with pytest.raises(UsageError, match=r"train2\.bmp: cannot be read \(No such file or directory\)"):
        load_data(f"{code}:of_files")


@pytest.mark.parametrize(
    "change",
    [
        lambda photos: (photos / "train/train1.bmp").rename(photos / "train/other.bmp"),
        lambda photos: Image.new("RGB", (20, 20)).save(photos / "test/test0.bmp"),
    ],
    ids=["another name", "another size"],
)
def test_other_files_are_found(code: str, photos: Path, change: Callable[[Path], object]) -> None:
    """A function whose files are others, by name or size, gives another data set, though labels are the same."""
    recipe = load_data(f"{code}:of_files").recipe
    assert load_data(recipe).recipe == recipe
    change(photos)
    with pytest.raises(UsageError, match=r"its images or their split are not those of before"):
        load_data(recipe)


def test_the_function_of_the_guide_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is written there."""
    guide = (Path(__file__).parents[2] / "docs/guides/train_on_your_images.md").read_text()
    (tmp_path / "my_data.py").write_text(guide.partition("```python\n")[2].partition("```")[0])
    images = np.random.default_rng(1).integers(0, 256, (9100, 4, 4, 3)).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", np.arange(9100) % 3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    data = load_data("my_data:load")
    assert (len(data.train), len(data.validation), len(data.test)) == (8000, 1000, 100)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("nothing", "cannot be imported from .* has no attribute 'nothing'"),
        ("untyped", "must be a function that says what it returns: def load"),
        ("CODE.x", "cannot be imported from .* has no attribute 'CODE'"),
        ("number", "its function must return a DataSet, but got int"),
        ("broken", r"cannot be made \(OSError: the server is away\)"),
        ("leaving", r"cannot be made \(SystemExit: 4\)"),
        ("unfit", "labels must be at least two different names"),
        ("", "cannot be imported"),
    ],
)
def test_a_function_that_gives_none_is_refused(code: str, function: str, problem: str) -> None:
    """Whatever it raises or returns is one line that names it."""
    with pytest.raises(UsageError, match=problem) as told:
        load_data(f"{code}:{function}")
    assert code in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["no_such_module:load", ":load", "os:getcwd", "os:abort", "..x:load", "os.path:"])
def test_other_code_is_not_called(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is missing, and functions of Python, which a stranger's run folder could name."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(UsageError, match=r"cannot be imported|must be a function that says what it returns"):
        load_data(name)


def test_the_choices_of_the_guide_are_read() -> None:
    """Its mapping is one that edgenas reads, with a RandAugment of its own."""
    guide = (Path(__file__).parents[2] / "docs/guides/train_on_your_images.md").read_text()
    block = guide.partition("## Augmentation\n")[2].partition("```yaml\n")[2].partition("```")[0]
    source = DataSource.parse(yaml.safe_load(block)["data"])
    assert source.augmentation == Augmentation(
        crop=(0.35, 1.0), flip=True, randaugment=RandAugment(2, 9), mixup=0.2, erasing=0.25
    )


def test_a_mapping_gives_a_data_set_other_choices() -> None:
    """The augmentation of the mapping takes the place of the data set's own."""
    data = load_data({"name": "digits", "augmentation": {"flip": True, "mixup": 0.2}})
    assert data.augmentation == Augmentation(flip=True, mixup=0.2)
    assert data.recipe == {"name": "digits", "augmentation": {"flip": True, "mixup": 0.2}}


def test_a_recipe_makes_the_same_again() -> None:
    """A name alone stays a name, as in runs of earlier versions; a mapping comes back through JSON."""
    assert load_data("digits").recipe == load_data({"name": "digits"}).recipe == "digits"
    recipe = load_data({"name": "digits", "augmentation": {"crop": [0.5, 1], "erasing": 0.1}}).recipe
    again = load_data(json.loads(json.dumps(recipe)))
    assert again.augmentation == Augmentation(crop=(0.5, 1.0), erasing=0.1)
    assert json.loads(json.dumps(again.recipe)) == json.loads(json.dumps(recipe))


def test_a_data_set_is_not_loaded_again() -> None:
    """One that was loaded is returned as it is."""
    data = load_data("digits")
    assert load_data(data) is data


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ({"nam": "digits"}, "data: unknown key 'nam'; did you mean 'name'"),
        ({"augmentation": {}}, "data: key 'name' is missing"),
        ({"name": "digits", "augmentation": {"mixup": 99}}, "data: .*mixup must be from 0 to 10, but got 99"),
        ({"name": "digits", "augmentation": {"randaugment": {}}}, "'digits': randaugment needs pixel values from 0 to"),
        ({"name": "digits", "skip_bad": True}, "digits: --skip-bad is for folders of images"),
        ({"name": "digits", "sha256": "12"}, "digits: its images or their split are not those of before"),
    ],
)
def test_a_wrong_mapping_is_refused(source: dict[str, object], problem: str) -> None:
    """On one line that names the key or the rule."""
    with pytest.raises(UsageError, match=problem):
        load_data(source)


def test_a_name_with_a_slash_is_a_folder() -> None:
    """Also where a colon stands in it."""
    assert DataSource("photos:new").is_code
    assert not DataSource("./photos:new").is_code
