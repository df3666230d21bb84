"""Data sets by name, with fixed splits, preprocessing and augmentation."""

from __future__ import annotations

from edgenas.data.augmentation import Augmentation, RandAugment
from edgenas.data.data_set import DataSet, DataSetPreprocessing, resize_matrix
from edgenas.data.images import ImageFiles, ImagePaths, ImageSize, Split, to_image_size
from edgenas.data.loading import load_data
from edgenas.data.source import DataSource

__all__ = [
    "Augmentation",
    "DataSet",
    "DataSetPreprocessing",
    "DataSource",
    "ImageFiles",
    "ImagePaths",
    "ImageSize",
    "RandAugment",
    "Split",
    "load_data",
    "resize_matrix",
    "to_image_size",
]
