"""Data sets by name, with fixed splits and their preprocessing."""

from __future__ import annotations

from edgenas.data.data_set import DataSet, DataSetPreprocessing, Split, load_data, resize_matrix

__all__ = ["DataSet", "DataSetPreprocessing", "Split", "load_data", "resize_matrix"]
