"""Data sets by name, with fixed splits and their preprocessing."""

from __future__ import annotations

from edgenas.data.data_set import (
    DataSet,
    DataSetPreprocessing,
    ImageSize,
    Split,
    resize_matrix,
    to_image_size,
)
from edgenas.data.loading import load_data

__all__ = ["DataSet", "DataSetPreprocessing", "ImageSize", "Split", "load_data", "resize_matrix", "to_image_size"]
