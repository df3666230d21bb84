"""What a data set is: images with fixed splits, their preprocessing and augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgenas.data.augmentation import Augmentation
from edgenas.data.images import ImageFiles, Images, ImageSize, Inputs, Labels, Split, map_images, to_planes
from edgenas.data.preprocess import preprocess
from edgenas.data.source import DataSource
from edgenas.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

_BYTE_SCALE = 1 / 255
_BATCH = 128
_MILD = Augmentation(turn=15.0, scale=0.1, shift=0.15)


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


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set with a fixed, stratified split.

    Attributes:
        name: name by which ``load_data`` finds it.
        labels: name of each class.
        preprocessing: scaling of its pixel values.
        train: images that weights are trained on.
        validation: images that choices are made by.
        test: images that only the final accuracy is measured on.
        augmentation: how training images are changed.
        warnings: what is odd about the images, with what to do; a line each.
        sha256: digest of images and labels that may change under the same name; empty where they cannot.
        source: what ``load_data`` was asked for; it fills this in.
    """

    name: str
    labels: tuple[str, ...]
    preprocessing: DataSetPreprocessing
    train: Split
    validation: Split
    test: Split
    augmentation: Augmentation = _MILD
    warnings: tuple[str, ...] = ()
    sha256: str = ""
    source: DataSource | None = None

    @property
    def recipe(self) -> str | dict[str, Any]:
        """What ``load_data`` makes the same data set of again, as plain data: its name, or a mapping with it."""
        if self.source is None:
            return self.name
        return replace(self.source, name=self.name, sha256=self.sha256).to_plain()

    @property
    def class_count(self) -> int:
        """The number of classes."""
        return len(self.labels)

    def to_inputs(self, images: Images | ImageFiles, size: ImageSize) -> Inputs:
        """Return N images as network inputs (N, C, *size), as a bundle's ``preprocess`` does for one."""
        if isinstance(images, ImageFiles) or self.preprocessing.crop or self.preprocessing.antialias:
            settings = self.preprocessing.to_settings(size)
            return np.concatenate(map_images(lambda image, _: preprocess(image, settings), images))
        rows, columns = (resize_matrix(side, target) for side, target in zip(images.shape[1:3], size, strict=True))
        planes = to_planes(images).astype(np.float32)
        inputs: Inputs = self._normalise(np.einsum("rh,nkhw,cw->nkrc", rows, planes, columns, optimize=True))
        return inputs

    def to_batches(self, images: Images | ImageFiles, size: ImageSize) -> Iterator[Inputs]:
        """Yield ``to_inputs`` of so many images at a time as fit into memory: ImageNet's test images take 30 GB."""
        for start in range(0, len(images), _BATCH):
            yield self.to_inputs(images[start : start + _BATCH], size)

    def _normalise(self, planes: Any, to_array: Callable[[Inputs], Any] = lambda values: values) -> Any:
        """Scale pixel values (N, 1 or C, h, w), an array or what ``to_array`` makes; grey ones go to all C channels."""
        mean, std = (
            to_array(np.array(values, dtype=np.float32)[None, :, None, None])
            for values in (self.preprocessing.mean, self.preprocessing.std)
        )
        normalised = planes * float(np.float32(self.preprocessing.scale)) - mean
        normalised /= std  # in place: new memory for a batch of large images takes longer than the division
        return normalised

    def to_augmented_inputs(self, images: Images | ImageFiles, size: ImageSize, rng: np.random.Generator) -> Tensor:
        """Return ``to_inputs`` as a float32 tensor, each image changed at random as ``augmentation`` says."""
        import torch

        inputs = self._normalise(self.augmentation.change(images, size, rng), torch.from_numpy)
        return self.augmentation.erase(inputs, rng)

    def to_training_batch(self, rows: Labels, size: ImageSize, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return training images, changed at random, and what the network should say of them.

        Args:
            rows: Places in ``train``, (N,).
            size: Height and width of the inputs.
            rng: Decides everything random.

        Returns:
            The inputs, float32 (N, C, *size), and their labels, int64 (N,), or where the augmentation mixes images
            the probabilities of all classes, float32 (N, classes).
        """
        inputs = self.to_augmented_inputs(self.train.images[rows], size, rng)
        return self.augmentation.mix(inputs, self.train.labels[rows], self.class_count, rng)

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
    is_bytes = np.isclose(scaling.scale, _BYTE_SCALE)
    require(is_bytes or not data.augmentation.randaugment, "randaugment needs pixel values from 0 to 255 (scale 1/255)")
    for part, split in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        images, labels = split.images, split.labels
        require(len(images) == len(labels) > 0, f"{part} must have a label for each image, and at least one image")
        if isinstance(images, ImageFiles):
            require(data.augmentation.crop is not None, "files of images need an augmentation with a crop")
            images = images[0][None]
        if data.augmentation.crop or data.augmentation.randaugment:
            require(images.ndim == 3 or images.shape[-1] == 3, "crop and randaugment need grey (N, H, W) or RGB images")
        shaped = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == channels)
        rule = f"uint8 of shape (N, H, W) or (N, H, W, {channels})"
        require(images.dtype == np.uint8 and shaped, f"{part} images must be {rule}")
        require(labels.dtype.kind in "iu" and labels.ndim == 1, f"{part} labels must be integers of shape (N,)")
        last = data.class_count - 1
        require(0 <= labels.min() <= labels.max() <= last, f"{part} labels must be from 0 to {last}")
    missing = sorted(set(range(data.class_count)) - set(data.train.labels.tolist()))
    require(not missing, f"train has no image of class {', '.join(data.labels[each] for each in missing[:1])}")
