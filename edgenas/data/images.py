"""Images and their labels: in memory, or in files that are read when they are used."""

from __future__ import annotations

import functools
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import numpy as np
import numpy.typing as npt

from edgenas.errors import EdgeNASError, one_line

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Inputs = npt.NDArray[np.float32]
ImageSize = tuple[int, int]  # height and width, pixels

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp")  # of files that are taken from a folder
# What such a file may hold: pictures of the web often bear another suffix. No format whose reader starts a program.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "WEBP")
_MAX_PIXELS = 2**27  # of one image; a larger one may be a bomb


def to_image_size(size: int | Sequence[int]) -> ImageSize:
    """Return the ``size`` of a bundle's preprocessing, one number for both or two, as height and width."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


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


@final
@dataclass(frozen=True, eq=False)
class ImagePaths(ImageFiles):
    """Image files on the disk, read as RGB by Pillow."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Images:
        """Return an image, uint8 (H, W, 3); raise EdgeNASError where its file is gone or was damaged meanwhile."""
        path = self.paths[index]
        try:
            return read_image(path)
        except Exception as error:  # Pillow's parsers raise whatever they run into
            raise EdgeNASError(
                f"{path}: cannot be read any more ({one_line(error)}); put it back and run the same command again"
            ) from None

    def select(self, indices: Labels) -> Self:
        return type(self)(tuple(self.paths[index] for index in indices))


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set.

    Attributes:
        images: uint8, grey (N, H, W) or in colour (N, H, W, C); or files of images of any size.
        labels: (N,), integers; int64 in what ``load_data`` returns.
        indices: (N,), positions in the original data set.
    """

    images: Images | ImageFiles
    labels: Labels
    indices: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Labels) -> Split:
        """Return some of its images, in the order of ``rows``."""
        return Split(self.images[rows], self.labels[rows], self.indices[rows])


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


def read_image(path: Path, mode: str = "RGB") -> Images:
    """Return an image file as uint8 (H, W, 3), upright as its EXIF orientation says; (H, W) for the mode L, grey.

    Raises what Pillow does, and ValueError for what it would spoil.
    """
    from PIL import Image, ImageOps

    with Image.open(path, formats=_FORMATS) as image:
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels, more than {_MAX_PIXELS}")
        if image.mode.startswith(("I", "F")):
            raise ValueError("it has more than 8 bits a channel; save it with 8")
        ImageOps.exif_transpose(image, in_place=True)
        return np.asarray(image.convert(mode))


def map_images(function: Callable[[Images, int], Any], images: Images | ImageFiles) -> list[Any]:
    """Return the results of a function of each image and its place; files are read by threads."""
    if not isinstance(images, ImageFiles):
        return [function(image, index) for index, image in enumerate(images)]
    return map_in_threads(lambda index: function(images[index], index), range(len(images)))


def map_in_threads(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Return the results of a function that reads image files, by as many threads as this process has cores.

    The function may not call this one: it would wait for threads that wait for it.
    """
    # Pillow warns of odd metadata and of its own limit of size. The filter is the process's, so not set in a thread.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(_start_threads(_count_threads()).map(function, items))


def _count_threads() -> int:
    """Return this process's share of the cores that it may run on: torchrun starts several on one machine."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@functools.cache
def _start_threads(count: int) -> ThreadPoolExecutor:
    """Return threads that are kept until the process ends."""
    return ThreadPoolExecutor(count)


os.register_at_fork(after_in_child=_start_threads.cache_clear)  # a forked process has none of the threads


def to_planes(images: Images) -> Images:
    """Return images (N, H, W) as (N, 1, H, W), or (N, H, W, C) as (N, C, H, W)."""
    return images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)
