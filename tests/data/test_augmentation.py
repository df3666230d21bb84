"""How training images are changed: by their generator alone, and as each choice says."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgenas.data import Augmentation, DataSet, DataSetPreprocessing, RandAugment, Split
from edgenas.errors import UsageError
from edgenas.files import parse_dataclass

ROWS = np.arange(16)


def make(augmentation: Augmentation, channels: int = 3) -> DataSet:
    """Sixteen images of bytes in four classes, 20 x 20; synthetic."""
    shape = (16, 20, 20) if channels == 1 else (16, 20, 20, channels)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    split = Split(images, ROWS % 4, ROWS)
    preprocessing = DataSetPreprocessing(3, 1 / 255, (0.5,) * 3, (0.25,) * 3)
    return DataSet("made", tuple("abcd"), preprocessing, split, split, split, augmentation)


def batch(augmentation: Augmentation, seed: int = 1, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return make(augmentation, channels).to_training_batch(ROWS, (16, 16), np.random.default_rng(seed))


ALL = Augmentation(flip=True, crop=(0.3, 1.0), randaugment=RandAugment(), erasing=0.5, mixup=0.4)
EVERY = [
    ALL,
    replace(ALL, crop=None, turn=10.0, scale=0.2, shift=0.1),
    replace(ALL, mixup=0.0),
    replace(ALL, erasing=0.0),
]


@pytest.mark.parametrize("augmentation", EVERY, ids=lambda each: " ".join(each.to_dict()))
@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_follows_from_its_generator(augmentation: Augmentation, channels: int) -> None:
    """Equal generators give equal bits, whatever torch's generator has drawn; others give others."""
    torch.manual_seed(1)
    first = batch(augmentation, channels=channels)
    torch.manual_seed(2)
    again, other = batch(augmentation, channels=channels), batch(augmentation, seed=2, channels=channels)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == (16, 3, 16, 16)
    assert first[0].dtype == torch.float32


def test_torchs_generator_is_left_as_it_was() -> None:
    """What torchvision draws comes from a fork of torch's generator."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    batch(ALL)
    assert torch.equal(torch.rand(3), expected)


def test_nothing_is_done_that_is_not_given() -> None:
    """Without choices a batch is the plain inputs with their labels."""
    inputs, targets = batch(Augmentation())
    data = make(Augmentation())
    np.testing.assert_allclose(inputs.numpy(), data.to_inputs(data.train.images, (16, 16)), atol=1e-4)
    assert targets.tolist() == (ROWS % 4).tolist()


def test_mixup_averages_images_and_labels_alike() -> None:
    """Each image is averaged with its neighbour, by the weight that its targets show."""
    plain, labels = batch(Augmentation())
    inputs, targets = batch(Augmentation(mixup=1.0))
    assert targets.shape == (16, 4)
    weight = targets[0, 0]  # of the first image, of class 0; its neighbour is the last one, of class 3
    assert 0 < weight < 1
    torch.testing.assert_close(inputs, weight * plain + (1 - weight) * plain.roll(1, 0))
    expected = weight * torch.eye(4)[labels] + (1 - weight) * torch.eye(4)[labels.roll(1)]
    torch.testing.assert_close(targets, expected)


def test_erasing_sets_a_rectangle_to_the_mean() -> None:
    """Of each image one rectangle is 0, all channels alike, and the rest is as it was."""
    plain, _ = batch(Augmentation())
    inputs, _ = batch(Augmentation(erasing=1.0))
    for before, after in zip(plain, inputs, strict=True):
        changed = (before != after).any(0)
        rows, columns = changed.any(1).nonzero().ravel(), changed.any(0).nonzero().ravel()
        assert bool((after[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 0).all())
        assert 0 < changed.float().mean() < 0.5


def test_a_share_of_the_images_is_erased() -> None:
    """With 0.5 about half of the images have a rectangle, the others none."""
    plain, _ = batch(Augmentation())
    changed = [(batch(Augmentation(erasing=0.5), seed)[0] != plain).flatten(1).any(1) for seed in range(20)]
    assert 0.35 < torch.cat(changed).float().mean() < 0.65


def test_randaugment_changes_most_images_each_in_its_own_way() -> None:
    """Sixteen equal images become mostly different ones, with pixel values of bytes."""
    data = make(Augmentation(randaugment=RandAugment(2, 15)))
    assert isinstance(data.train.images, np.ndarray)
    images = np.repeat(data.train.images[:1], 16, axis=0)
    changed = data.augmentation.change(images, (20, 20), np.random.default_rng(0))
    assert len(changed.unique(dim=0)) > 8
    assert 0 <= changed.min() <= changed.max() <= 255


def crops(image: tuple[int, int], size: tuple[int, int], crop: tuple[float, float]) -> np.ndarray:
    """Heights and widths of the parts of an image that 400 crops show, measured by the coordinates of their pixels."""
    rows, columns = np.linspace(0, 255, image[0]), np.linspace(0, 255, image[1])
    pixels = np.stack([*np.meshgrid(rows, columns, indexing="ij"), np.zeros(image)], axis=-1).round().astype(np.uint8)
    images = np.broadcast_to(pixels, (400, *pixels.shape))
    shown = Augmentation(crop=crop).change(images, size, np.random.default_rng(0)).numpy()
    tall = (shown[:, 0, -1, 0] - shown[:, 0, 0, 0]) / 255 * size[0] / (size[0] - 1)  # between centres of outer pixels
    wide = (shown[:, 1, 0, -1] - shown[:, 1, 0, 0]) / 255 * size[1] / (size[1] - 1)
    return np.stack([tall * image[0], wide * image[1]], axis=1)


@pytest.mark.parametrize("image", [(360, 640), (640, 360), (400, 400)])
@pytest.mark.parametrize("size", [(32, 32), (32, 64)])
def test_a_crop_squashes_by_a_third_at_most(image: tuple[int, int], size: tuple[int, int]) -> None:
    """Width to height of the part is 3/4 to 4/3 of the input's, whatever the image's, as of Inception's crops."""
    tall, wide = crops(image, size, (0.1, 1.0)).T
    ratio = wide / tall / (size[1] / size[0])
    assert 0.73 < ratio.min() < ratio.max() < 1.37
    assert 0.85 < np.median(ratio) < 1.18


def test_a_crop_has_its_share_of_the_area() -> None:
    """Of a photo of 16:9, 4:3 is the broadest part: its share is from the least asked for to (4/3)/(16/9) = 3/4."""
    share = crops((360, 640), (32, 32), (0.35, 1.0)).prod(axis=1) / (360 * 640)
    assert 0.34 < share.min() < 0.37
    assert 0.73 < share.max() < 0.76


def test_a_panorama_gives_the_largest_part_of_a_fitting_shape() -> None:
    """Of an image ten times as wide as high, all of its height and 4/3 of that in width, though its share is less."""
    tall, wide = crops((60, 600), (32, 32), (0.5, 1.0)).T
    np.testing.assert_allclose(tall, 60, rtol=0.03)
    np.testing.assert_allclose(wide, 80, rtol=0.06)


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"turn": -1}, "turn must be from 0 to 180, but got -1"),
        ({"erasing": 1.5}, "erasing must be from 0 to 1, but got 1.5"),
        ({"mixup": float("nan")}, "mixup must be from 0 to 10, but got nan"),
        ({"crop": [0.0, 1.0]}, r"0 < least <= greatest <= 1 must hold for crop, but got \[0.0, 1.0\]"),
        ({"crop": [0.5, 0.2]}, "0 < least <= greatest <= 1 must hold"),
        ({"crop": [0.5, 1.0], "shift": 0.1}, "crop takes the place of turn, scale and shift"),
        ({"randaugment": {"count": 0}}, "count must be from 1 to 14 and magnitude from 0 to 30, but got 0 and 9"),
        ({"randaugment": {"strength": 3}}, "unknown key 'randaugment.strength'.* known: count, magnitude"),
        ({"fliip": True}, "unknown key 'fliip'; did you mean 'flip'"),
    ],
)
def test_a_wrong_choice_is_refused(values: dict[str, Any], rule: str) -> None:
    """On one line that names the choice and its range."""
    with pytest.raises(UsageError, match=rule):
        parse_dataclass(Augmentation, values, "photos.yaml: data")


@given(
    st.builds(
        Augmentation,
        flip=st.booleans(),
        crop=st.none() | st.just((0.3, 0.75)),
        randaugment=st.none() | st.builds(RandAugment, st.integers(1, 14), st.integers(0, 30)),
        erasing=st.floats(0, 1),
        mixup=st.floats(0, 10),
    )
)
def test_plain_data_gives_the_same_augmentation_back(augmentation: Augmentation) -> None:
    """Through JSON, as in a checkpoint, to the bit."""
    plain = json.loads(json.dumps(augmentation.to_dict()))
    assert plain == augmentation.to_dict()
    assert parse_dataclass(Augmentation, plain, "recipe") == augmentation
