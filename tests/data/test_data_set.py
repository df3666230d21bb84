"""The digits: their split, and how they become inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgenas.data import Augmentation, DataSet, DataSetPreprocessing, Split, load_data, resize_matrix
from edgenas.data.data_set import check_data_set
from edgenas.data.preprocess import preprocess
from edgenas.errors import UsageError


@pytest.fixture(scope="module")
def digits() -> DataSet:
    """The real digits."""
    return load_data("digits")


def _splits(data: DataSet) -> dict[str, Split]:
    return {"train": data.train, "validation": data.validation, "test": data.test}


class _Turning(np.random.Generator):
    """Draws the greatest turn, and neither scale nor shift."""

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return np.full(size, high if high == np.pi / 12 else 1.0 if high == 1.1 else 0.0)


class _Still(np.random.Generator):
    """A generator that always draws the middle of the range."""

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return np.full(size, (low + high) / 2)


def test_the_split_has_three_parts_that_hold_every_digit_once(digits: DataSet) -> None:
    """1,078, 360 and 359 of the 1,797 images: none twice, none left out."""
    sizes = [len(split) for split in _splits(digits).values()]
    assert sizes == [1078, 360, 359]
    indices = np.concatenate([split.indices for split in _splits(digits).values()])
    assert sorted(indices.tolist()) == list(range(1797))


def test_every_part_has_the_shares_of_the_classes(digits: DataSet) -> None:
    """Of each class 60% are for training and 20% for validation, to the image."""
    counts = [np.bincount(split.labels, minlength=10) for split in _splits(digits).values()]
    total = sum(counts)
    assert np.abs(counts[0] - 0.6 * total).max() <= 0.5
    assert np.abs(counts[0] + counts[1] - 0.8 * total).max() <= 0.5


def test_the_split_is_the_same_for_ever(digits: DataSet) -> None:
    """The first images of each part are these, for accuracies of old runs are compared with those of new ones."""
    first = {name: split.indices[:6].tolist() for name, split in _splits(digits).items()}
    assert first == {
        "train": [0, 2, 3, 4, 5, 6],
        "validation": [12, 21, 25, 26, 41, 42],
        "test": [1, 11, 17, 22, 27, 33],
    }


def test_images_and_labels_are_those_of_the_original(digits: DataSet) -> None:
    """Each part's images and labels are the rows of scikit-learn's data set that its indices name."""
    from sklearn.datasets import load_digits

    original = load_digits()
    for split in _splits(digits).values():
        assert isinstance(split.images, np.ndarray)
        assert np.array_equal(split.images, original.images[split.indices])
        assert np.array_equal(split.labels, original.target[split.indices])
        assert split.images.dtype == np.uint8


def test_training_inputs_are_about_standard(digits: DataSet) -> None:
    """Mean 0 and deviation 1 over the training images, to the rounding of the constants."""
    inputs = digits.to_inputs(digits.train.images, (8, 8))
    assert abs(inputs.mean()) < 2e-3
    assert abs(inputs.std() - 1) < 2e-3


@pytest.mark.parametrize("resolution", [1, 5, 8, 13, 24, 32])
def test_inputs_are_resized_as_torch_does(digits: DataSet, resolution: int) -> None:
    """Inputs are the normalised images after bilinear interpolation with half-pixel centres."""
    images = digits.validation.images[:20]
    tensor = (torch.from_numpy(images.astype(np.float32))[:, None] / 16 - 0.306) / 0.376
    expected = functional.interpolate(tensor, (resolution, resolution), mode="bilinear", align_corners=False)
    inputs = digits.to_inputs(images, (resolution, resolution))
    assert inputs.shape == (20, 3, resolution, resolution)
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs, expected.expand(-1, 3, -1, -1).numpy(), atol=1e-5)


@pytest.mark.parametrize("resolution", [8, 24, 32])
def test_inputs_are_those_of_a_bundle(digits: DataSet, resolution: int) -> None:
    """The preprocessing that ships with a model gives what the network was trained on."""
    settings = digits.preprocessing.to_settings((resolution, resolution))
    for image, expected in zip(
        digits.test.images[:5], digits.to_inputs(digits.test.images[:5], (resolution, resolution)), strict=True
    ):
        np.testing.assert_allclose(preprocess(image, settings)[0], expected, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 9), (10, 3)])
def test_inputs_need_not_be_square(digits: DataSet, size: tuple[int, int]) -> None:
    """Height and width are resized on their own, by the data set as by what ships with a model."""
    images = digits.test.images[:5]
    inputs = digits.to_inputs(images, size)
    assert inputs.shape == (5, 3, *size)
    settings = digits.preprocessing.to_settings(size)
    assert settings["size"] == list(size)
    for image, expected in zip(images, inputs, strict=True):
        np.testing.assert_allclose(preprocess(image, settings)[0], expected, atol=1e-5)
    assert digits.to_augmented_inputs(images, size, np.random.default_rng(0)).shape == (5, 3, *size)


def test_resizing_by_hand() -> None:
    """Two pixels to four: centres at -1/4, 1/4, 3/4 and 5/4 of a pixel, the outer ones clamped."""
    assert resize_matrix(2, 4).tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]


def test_one_pixel_fills_any_size() -> None:
    """A single pixel is repeated."""
    assert resize_matrix(1, 3).tolist() == [[1], [1], [1]]


def test_augmentation_follows_from_its_generator(digits: DataSet) -> None:
    """Equal generators give equal bits, independent of the global ones; others give others."""
    images = digits.train.images[:8]
    one = digits.to_augmented_inputs(images, (24, 24), np.random.default_rng(1))
    np.random.seed(5)
    torch.manual_seed(5)
    assert torch.equal(digits.to_augmented_inputs(images, (24, 24), np.random.default_rng(1)), one)
    assert not torch.equal(digits.to_augmented_inputs(images, (24, 24), np.random.default_rng(2)), one)


def test_augmentation_that_does_nothing_is_plain_preprocessing(digits: DataSet) -> None:
    """Without turn, scale and shift the augmented images are the inputs themselves."""
    images = digits.train.images[:8]
    still = digits.to_augmented_inputs(images, (24, 24), _Still(np.random.PCG64(0)))
    np.testing.assert_allclose(still.numpy(), digits.to_inputs(images, (24, 24)), atol=1e-4)


def test_augmentation_moves_images_a_little(digits: DataSet) -> None:
    """Augmented images are others, but on average near the originals."""
    images = digits.train.images
    moved = digits.to_augmented_inputs(images, (8, 8), np.random.default_rng(0)).numpy()
    plain = digits.to_inputs(images, (8, 8))
    assert moved.dtype == np.float32
    correlations = [np.corrcoef(one.ravel(), two.ravel())[0, 1] for one, two in zip(moved, plain, strict=True)]
    assert 0.7 < np.median(correlations) < 0.99


def test_augmentation_turns_in_pixels(digits: DataSet) -> None:
    """On an input three times as high as wide, a horizontal line rises as far as the turn says, not three times so."""
    line = np.zeros((1, 60, 20), np.uint8)
    line[0, 29:31] = 16
    turned = digits.to_augmented_inputs(line, (60, 20), _Turning(np.random.PCG64(0))).numpy()[0, 0]
    left, right = turned[:, 1].argmax(), turned[:, 18].argmax()
    assert abs(abs(int(right) - int(left)) - 17 * np.tan(np.pi / 12)) < 1.5


def test_the_summary_names_every_image(digits: DataSet) -> None:
    """The summary holds labels, preprocessing and the indices of each part, as plain data."""
    summary = digits.summary()
    assert summary["labels"] == [str(number) for number in range(10)]
    assert summary["indices"]["test"] == digits.test.indices.tolist()
    assert summary["preprocessing"]["scale"] == 1 / 16


def test_an_unknown_data_set_lists_the_known() -> None:
    """A wrong name is refused with the nearest known one."""
    with pytest.raises(UsageError, match="no folder and no data set is called 'digit'; did you mean 'digits'"):
        load_data("digit")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"name": "other"}, "its name is 'other'; give its entry point that name"),
        ({"labels": ("0",) * 10}, "labels must be at least two different names"),
        ({"preprocessing": DataSetPreprocessing(3, 1 / 16, (0.3,), (0.4,))}, "mean and std need a value for each of 3"),
        ({"preprocessing": DataSetPreprocessing(1, 1 / 16, (0.3,), (0.0,))}, "std must be above 0"),
        ({"images": np.float32}, "test images must be uint8 of shape"),
        ({"labels of": -1}, "test labels must be from 0 to 9"),
        ({"short": True}, "test must have a label for each image"),
        ({"without": 7}, "train has no image of class 7"),
    ],
)
def test_a_data_set_that_nothing_can_be_trained_on_is_refused(
    digits: DataSet, change: dict[str, Any], rule: str
) -> None:
    """Before training, on one line that names the data set and the rule."""
    test, train = digits.test, digits.train
    assert isinstance(test.images, np.ndarray)
    pixels = test.images
    splits = {
        "images": lambda value: {"test": replace(test, images=pixels.astype(value))},
        "labels of": lambda value: {"test": replace(test, labels=np.full_like(test.labels, value))},
        "short": lambda value: {"test": replace(test, labels=test.labels[:-1])},
        "without": lambda value: {"train": replace(train, labels=np.where(train.labels == value, 0, train.labels))},
    }
    (key,) = change
    changed = replace(digits, **(splits[key](change[key]) if key in splits else change))
    check_data_set(digits, "digits")
    with pytest.raises(UsageError, match=f"^data set 'digits': {rule}"):
        check_data_set(changed, "digits")


def test_half_of_the_images_are_mirrored(digits: DataSet) -> None:
    """With nothing else at random, an augmented image is the image or its mirror image."""
    still = replace(digits, augmentation=Augmentation(flip=True))
    images = still.train.images[:64]
    plain = torch.from_numpy(still.to_inputs(images, (8, 8)))
    found = still.to_augmented_inputs(images, (8, 8), np.random.default_rng(0))
    same = [torch.allclose(one, other, atol=1e-4) for one, other in zip(found, plain, strict=True)]
    mirrored = [torch.allclose(one.flip(2), other, atol=1e-4) for one, other in zip(found, plain, strict=True)]
    assert all(each or other for each, other in zip(same, mirrored, strict=True))
    assert 16 < sum(same) < 48
