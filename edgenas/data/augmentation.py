"""How training images are changed at random.

Everything random is drawn from a generator that is passed in, before threads begin, or from torch's generator while it
is forked and seeded from that one. So equal generators give equal bits, whatever the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgenas.data.images import ImageFiles, Images, ImageSize, Labels, map_images, to_planes
from edgenas.data.torchvision_import import import_torchvision
from edgenas.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

_CROP_RATIOS = (3 / 4, 4 / 3)  # of a crop's width to its height, by the same of the input: how much it is squashed
_CROP_TRIES = 10  # as torchvision
_FORBID_UNKNOWN = {"extra": "forbid"}


@dataclass(frozen=True)
class RandAugment:
    """Operations on each image, drawn at random from fourteen (RandAugment, arXiv 1909.13719), by torchvision.

    Attributes:
        count: The number of operations.
        magnitude: Their strength, 0 to 30.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    count: int = 2
    magnitude: int = 9

    def __post_init__(self) -> None:
        if not (1 <= self.count <= 14 and 0 <= self.magnitude <= 30):
            raise UsageError(
                f"randaugment: count must be from 1 to 14 and magnitude from 0 to 30,"
                f" but got {self.count} and {self.magnitude}"
            )


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed at random; what is not given is not done.

    Attributes:
        turn: The largest angle of a turn, degrees.
        scale: The largest share by which an image grows or shrinks.
        shift: The largest shift, as a share of half the image's side.
        flip: Whether half of the images are mirrored, left for right.
        crop: The least and the greatest share of an image's area that a random part of it has, which is resized to
            the input, its sides squashed by a third at most (Inception's crops, arXiv 1409.4842). It takes the place
            of turn, scale and shift.
        randaugment: Operations on colours and geometry, on images of bytes from 0 to 255.
        erasing: The share of images of which a random rectangle is erased (arXiv 1708.04896).
        mixup: Two images and their labels are averaged with a weight from the beta distribution of this parameter
            (mixup, arXiv 1710.09412); 0 for none.

    Raises:
        UsageError: A value is out of range, or ``crop`` is combined with what it takes the place of.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    turn: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    flip: bool = False
    crop: tuple[float, float] | None = None
    randaugment: RandAugment | None = None
    erasing: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        for name, most in (("turn", 180), ("scale", 0.9), ("shift", 1), ("erasing", 1), ("mixup", 10)):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise UsageError(f"augmentation: {name} must be from 0 to {most}, but got {value}")
        if self.crop is not None and not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise UsageError(f"augmentation: 0 < least <= greatest <= 1 must hold for crop, but got {list(self.crop)}")
        if self.crop is not None and (self.turn or self.scale or self.shift):
            raise UsageError("augmentation: crop takes the place of turn, scale and shift; give it or them")

    def to_dict(self) -> dict[str, Any]:
        """Return what is done as plain data that JSON gives back equal."""
        given = {field.name for field in fields(self) if getattr(self, field.name) != field.default}
        plain = {name: value for name, value in asdict(self).items() if name in given}
        return plain if self.crop is None else {**plain, "crop": list(self.crop)}

    def change(self, images: Images | ImageFiles, size: ImageSize, rng: np.random.Generator) -> Tensor:
        """Return images, each changed and resized, as float32 (N, channels, *size) of pixel values."""
        import torch

        if self.crop is not None:
            cropped = self._apply_randaugment(self._crop(images, size, rng), rng)
            return torch.from_numpy(to_planes(cropped)).float()
        assert not isinstance(images, ImageFiles)  # check_data_set: files are cropped
        return self._warp(self._apply_randaugment(images, rng), size, rng)

    def erase(self, inputs: Tensor, rng: np.random.Generator) -> Tensor:
        """Return normalised images (N, C, H, W), some with a rectangle set to the mean colour."""
        if not self.erasing:
            return inputs
        import torch

        with _seeded_torch(rng) as transforms:
            erase = transforms.RandomErasing(p=self.erasing)
            return torch.stack([erase(each) for each in inputs])

    def mix(self, inputs: Tensor, labels: Labels, classes: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return images (N, C, H, W) and their targets: labels (N,), with ``mixup`` probabilities (N, classes)."""
        import torch

        targets = torch.from_numpy(labels)
        if not self.mixup:
            return inputs, targets
        with _seeded_torch(rng) as transforms:
            mixed: tuple[Tensor, Tensor] = transforms.MixUp(alpha=self.mixup, num_classes=classes)(inputs, targets)
        return mixed

    def _warp(self, images: Images, size: ImageSize, rng: np.random.Generator) -> Tensor:
        """Return images (N, H, W[, C]), turned, scaled, shifted and mirrored by one interpolation of the batch."""
        import torch
        from torch.nn import functional

        count, turn = len(images), math.radians(self.turn)
        angle = rng.uniform(-turn, turn, count)
        scale = rng.uniform(1 - self.scale, 1 + self.scale, count)
        shift = rng.uniform(-self.shift, self.shift, (count, 2))
        rotation = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(count, 2, 2)
        rotation = rotation * [[1.0, size[0] / size[1]], [size[1] / size[0], 1.0]]  # coordinates: -1 to 1 on both sides
        theta = np.concatenate([rotation * scale[:, None, None], shift[:, :, None]], axis=2).astype(np.float32)
        if self.flip:
            theta[:, 0] *= np.where(rng.random((count, 1)) < 0.5, np.float32(-1), np.float32(1))  # along the width
        planes = torch.from_numpy(to_planes(images)).float()
        grid = functional.affine_grid(torch.from_numpy(theta), [count, planes.shape[1], *size], align_corners=False)
        return functional.grid_sample(planes, grid, padding_mode="border", align_corners=False)

    def _crop(self, images: Images | ImageFiles, size: ImageSize, rng: np.random.Generator) -> Images:
        """Return a random part of each image, resized to (N, *size[, C])."""
        from PIL import Image

        assert self.crop is not None
        count = len(images)
        least, greatest = (ratio * size[1] / size[0] for ratio in _CROP_RATIOS)
        shares = rng.uniform(*self.crop, (count, _CROP_TRIES))
        ratios = np.exp(rng.uniform(math.log(least), math.log(greatest), (count, _CROP_TRIES)))
        limits = (self.crop[1], least, greatest)
        place = rng.uniform(0, 1, (count, 2))
        mirrored = rng.random(count) < 0.5 if self.flip else np.zeros(count, dtype=np.bool_)

        def crop(image: Images, index: int) -> Images:
            height, width = image.shape[:2]
            tall, wide = _choose_crop((height, width), shares[index], ratios[index], limits)
            top, left = place[index] * (height - tall, width - wide)
            box = (left, top, left + wide, top + tall)
            resized = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR, box=box))
            return resized[:, ::-1] if mirrored[index] else resized

        return np.stack(map_images(crop, images))

    def _apply_randaugment(self, images: Images, rng: np.random.Generator) -> Images:
        """Return images (N, H, W[, 3]), each changed by operations of its own."""
        if self.randaugment is None:
            return images
        from PIL import Image

        with _seeded_torch(rng) as transforms:
            change = transforms.RandAugment(self.randaugment.count, self.randaugment.magnitude)
            return np.stack([np.asarray(change(Image.fromarray(image))) for image in images])


def _choose_crop(
    image: ImageSize, shares: np.ndarray, ratios: np.ndarray, limits: tuple[float, float, float]
) -> tuple[float, float]:
    """Return the height and width of a part of an image, in pixels, which may be fractions.

    The first pair of share and ratio whose part fits is taken, as torchvision's RandomResizedCrop does. Where none
    fits, it is the largest part of an allowed ratio.

    Args:
        image: Height and width of the image.
        shares: Shares of its area, one for each try.
        ratios: Ratios of the part's width to its height, one for each try.
        limits: The greatest share, and the least and the greatest ratio.
    """
    height, width = image
    talls, wides = np.sqrt(shares * height * width / ratios), np.sqrt(shares * height * width * ratios)
    if len(fitting := np.flatnonzero((talls <= height) & (wides <= width))):
        return float(talls[fitting[0]]), float(wides[fitting[0]])
    share, narrow, broad = limits
    ratio = min(max(width / height, narrow), broad)
    tall = min(height, width / ratio, math.sqrt(share * height * width / ratio))
    return tall, min(width, tall * ratio)


@contextmanager
def _seeded_torch(rng: np.random.Generator) -> Iterator[Any]:
    """Give torchvision's transforms, which draw from torch's generator: it is forked, and seeded from ``rng``."""
    import_torchvision("augmentation with randaugment, erasing or mixup")
    import torch
    from torchvision.transforms import v2

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(rng.integers(2**63)))
        yield v2
