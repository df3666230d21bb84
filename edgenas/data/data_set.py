"""What a data set is: images in memory, with fixed splits and their preprocessing."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self, final

import numpy as np
import numpy.typing as npt

from edgenas.data.preprocess import preprocess
from edgenas.errors import UsageError

if TYPE_CHECKING:
    import torch

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Inputs = npt.NDArray[np.float32]
ImageSize = tuple[int, int]  # height and width, pixels


def to_image_size(size: int | Sequence[int]) -> ImageSize:
    """Return the ``size`` of a bundle's preprocessing, one number for both or two, as height and width."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


@dataclass(frozen=True)
class DataSetPreprocessing:
    """The scaling of pixel values that a data set prescribes, the same at every size.

    An image, or the middle square of it where ``crop`` is given (as a share of
    the shorter side), is resized to the network's input (bilinear, half-pixel
    centres; ``antialias`` averages over what becomes one pixel), multiplied by
    ``scale``, repeated to ``channels``, reduced by ``mean`` and divided by
    ``std``. A bundle stores it complete, with one size and layout, as
    ``edgenas.bundle.check.PreprocessingSettings``.
    """

    channels: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float | None = None
    antialias: bool = False

    def to_settings(self, size: ImageSize) -> dict[str, Any]:
        """Return the ``settings`` of ``edgenas.data.preprocess`` for a network with inputs of this size."""
        height, width = size
        return {"size": height if height == width else [height, width], **asdict(self)}


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed at random.

    Attributes:
        turn: the largest angle of a turn, radians.
        scale: the largest share by which an image grows or shrinks.
        shift: the largest shift, as a share of half the image's side.
        flip: whether half of the images are mirrored, left for right.
        crop: the least and the greatest share of an image's area that a random part of it has, which is resized to
            the input; the images are then neither turned, scaled nor shifted. None for no such part.
    """

    turn: float = math.pi / 12
    scale: float = 0.1
    shift: float = 0.15
    flip: bool = False
    crop: tuple[float, float] | None = None


class ImageFiles(ABC):
    """Images of any size that are read when they are used; abstract."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def read(self, index: int) -> Images:
        """Return an image, uint8 (H, W, C)."""

    @abstractmethod
    def select(self, indices: Labels) -> Self:
        """Return some of the images, in the order of ``indices``."""

    @final
    def __getitem__(self, which: Any) -> Any:
        """Return one image for a number, and some images for an array or a slice, as an array of images does."""
        if isinstance(which, int | np.integer):
            return self.read(int(which))
        return self.select(np.arange(len(self))[which])


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set.

    Attributes:
        images: uint8, grey (N, H, W) or in colour (N, H, W, C); or files of images of any size.
        labels: (N,).
        indices: (N,), positions in the original data set.
    """

    images: Images | ImageFiles
    labels: Labels
    indices: Labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set in memory with a fixed, stratified split.

    Attributes:
        name: name by which ``load_data`` finds it.
        labels: name of each class.
        preprocessing: scaling of its pixel values.
        train: images that weights are trained on.
        validation: images that choices are made by.
        test: images that only the final accuracy is measured on.
        augmentation: how training images are changed.
        warnings: what is odd about the images, with what to do; a line each.
    """

    name: str
    labels: tuple[str, ...]
    preprocessing: DataSetPreprocessing
    train: Split
    validation: Split
    test: Split
    augmentation: Augmentation = Augmentation()
    warnings: tuple[str, ...] = ()

    @property
    def class_count(self) -> int:
        """The number of classes."""
        return len(self.labels)

    def to_inputs(self, images: Images | ImageFiles, size: ImageSize) -> Inputs:
        """Return N images as network inputs (N, C, *size), as a bundle's ``preprocess`` does for one."""
        if isinstance(images, ImageFiles) or self.preprocessing.crop or self.preprocessing.antialias:
            settings = self.preprocessing.to_settings(size)
            return np.concatenate(_map_images(lambda image, _: preprocess(image, settings), images))
        rows, columns = (resize_matrix(side, target) for side, target in zip(images.shape[1:3], size, strict=True))
        planes = _to_planes(images)
        return self._normalise(np.einsum("rh,nkhw,cw->nkrc", rows, planes, columns, optimize=True))

    def _normalise(self, planes: Inputs) -> Inputs:
        """Scale images (N, 1, h, w) or (N, C, h, w); grey ones are repeated to (N, C, h, w)."""
        mean = np.array(self.preprocessing.mean, dtype=np.float32)[None, :, None, None]
        std = np.array(self.preprocessing.std, dtype=np.float32)[None, :, None, None]
        scaled = planes * np.float32(self.preprocessing.scale)
        if scaled.shape[1] == 1:
            scaled = np.repeat(scaled, self.preprocessing.channels, axis=1)
        normalised: Inputs = ((scaled - mean) / std).astype(np.float32)
        return normalised

    def to_augmented_inputs(
        self, images: Images | ImageFiles, size: ImageSize, rng: np.random.Generator
    ) -> torch.Tensor:
        """Return ``to_inputs`` as a float32 tensor, each image changed at random as ``augmentation`` says."""
        import torch
        from torch.nn import functional

        if self.augmentation.crop is not None:
            cropped = self._crop_at_random(images, size, rng)
            return torch.from_numpy(self._normalise(_to_planes(cropped)))
        assert not isinstance(images, ImageFiles)  # check_data_set: files are cropped

        count, most = len(images), self.augmentation
        angle = rng.uniform(-most.turn, most.turn, count)
        scale = rng.uniform(1 - most.scale, 1 + most.scale, count)
        shift = rng.uniform(-most.shift, most.shift, (count, 2))
        turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(count, 2, 2)
        turn = turn * [[1.0, size[0] / size[1]], [size[1] / size[0], 1.0]]  # coordinates are from -1 to 1 on both sides
        theta = np.concatenate([turn * scale[:, None, None], shift[:, :, None]], axis=2).astype(np.float32)
        if most.flip:
            theta[:, 0] *= np.where(rng.random((count, 1)) < 0.5, np.float32(-1), np.float32(1))  # along the width
        planes = torch.from_numpy(_to_planes(images))
        grid = functional.affine_grid(torch.from_numpy(theta), [count, planes.shape[1], *size], align_corners=False)
        warped = functional.grid_sample(planes, grid, padding_mode="border", align_corners=False)
        return torch.from_numpy(self._normalise(warped.numpy()))

    def _crop_at_random(self, images: Images | ImageFiles, size: ImageSize, rng: np.random.Generator) -> Images:
        """Return a random part of each image, resized to (N, *size[, C]), as Inception's crops (arXiv 1409.4842)."""
        from PIL import Image

        assert self.augmentation.crop is not None
        count = len(images)
        area = rng.uniform(*self.augmentation.crop, count)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), count))
        place = rng.uniform(0, 1, (count, 2))
        mirrored = rng.random(count) < 0.5 if self.augmentation.flip else np.zeros(count, dtype=np.bool_)

        def crop(image: Images, index: int) -> Images:
            height, width = image.shape[:2]
            tall = min(1.0, math.sqrt(area[index] / ratio[index])) * height
            wide = min(1.0, math.sqrt(area[index] * ratio[index])) * width
            top, left = place[index] * (height - tall, width - wide)
            box = (left, top, left + wide, top + tall)
            resized = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR, box=box))
            return resized[:, ::-1] if mirrored[index] else resized

        return np.stack(_map_images(crop, images))

    def summary(self) -> dict[str, Any]:
        """Return plain JSON data that names the images of each part, so that others can check our numbers."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {
            "name": self.name,
            "labels": list(self.labels),
            "preprocessing": asdict(self.preprocessing),
            "indices": {name: split.indices.tolist() for name, split in splits.items()},
        }


def resize_matrix(size: int, target: int) -> Inputs:
    """Return the matrix (target, size) that resizes one axis: bilinear, half-pixel centres, edges clamped."""
    centres = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
    low = np.minimum(centres.astype(np.int64), max(size - 2, 0))
    weight = centres - low
    matrix = np.zeros((target, size), dtype=np.float32)
    matrix[np.arange(target), low] = 1 - weight
    matrix[np.arange(target), np.minimum(low + 1, size - 1)] += weight
    return matrix


def _map_images(function: Callable[[Images, int], Any], images: Images | ImageFiles) -> list[Any]:
    """Return the results of a function of each image and its place; files are read by as many threads as cores."""
    if not isinstance(images, ImageFiles):
        return [function(image, index) for index, image in enumerate(images)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda index: function(images[index], index), range(len(images))))


def _to_planes(images: Images) -> Inputs:
    """Return images (N, H, W) as (N, 1, H, W), or (N, H, W, C) as (N, C, H, W), in float32."""
    planes = images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)
    return planes.astype(np.float32)


def split_indices_by_class(
    labels: Labels, shares: tuple[float, float], rng: np.random.Generator
) -> tuple[Labels, Labels, Labels]:
    """Return the sorted indices of three parts; the first two hold ``shares`` of every class, the third the rest."""
    parts: list[list[Labels]] = [[], [], []]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.round(np.cumsum(shares) * len(members)).astype(np.int64)
        for part, chunk in zip(parts, np.split(members, cuts), strict=True):
            part.append(chunk)
    train, validation, test = (np.sort(np.concatenate(part)) for part in parts)
    return train, validation, test


def check_data_set(data: DataSet, name: str) -> None:
    """Raise UsageError, naming the rule, for a data set that nothing can be trained on.

    Args:
        data: The data set, which may be of another package.
        name: The name that it was found by.
    """

    def require(condition: object, rule: str) -> None:
        if not condition:
            raise UsageError(f"data set {name!r}: {rule}")

    require(data.name == name, f"its name is {data.name!r}; give its entry point that name")
    require(len(set(data.labels)) == len(data.labels) > 1, "labels must be at least two different names")
    scaling, channels = data.preprocessing, data.preprocessing.channels
    lengths = {len(scaling.mean), len(scaling.std)}
    require(lengths == {channels}, f"mean and std need a value for each of {channels} channels")
    require(min(scaling.std) > 0, "std must be above 0")
    for part, split in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        images, labels = split.images, split.labels
        require(len(images) == len(labels) > 0, f"{part} must have a label for each image, and at least one image")
        if isinstance(images, ImageFiles):
            require(data.augmentation.crop is not None, "files of images need an augmentation with a crop")
            images = images[0][None]
        shaped = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == channels)
        rule = f"uint8 of shape (N, H, W) or (N, H, W, {channels})"
        require(images.dtype == np.uint8 and shaped, f"{part} images must be {rule}")
        require(labels.dtype.kind in "iu", f"{part} labels must be integers")
        last = data.class_count - 1
        require(0 <= labels.min() <= labels.max() <= last, f"{part} labels must be from 0 to {last}")
    missing = sorted(set(range(data.class_count)) - set(data.train.labels.tolist()))
    require(not missing, f"train has no image of class {', '.join(data.labels[each] for each in missing[:1])}")
