"""The embedded data set: 1,797 real handwritten digits of 8x8 pixels.

UCI optical recognition of handwritten digits, by way of scikit-learn.
"""

from __future__ import annotations

import numpy as np

from edgenas.data.data_set import DataSet, DataSetPreprocessing
from edgenas.data.images import Split, split_indices_by_class


def load_digits() -> DataSet:
    """Return ``digits``, with a fixed split by class: 60% for training, 20% for validation, 20% for testing."""
    from sklearn import datasets

    digits = datasets.load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    train, validation, test = (
        Split(images[indices], labels[indices], indices)
        for indices in split_indices_by_class(labels, (0.6, 0.2), np.random.default_rng(1797))
    )
    # Mean and deviation of the 8x8 training pixels after scaling, rounded.
    preprocessing = DataSetPreprocessing(channels=3, scale=1 / 16, mean=(0.306,) * 3, std=(0.376,) * 3)
    return DataSet("digits", tuple(str(digit) for digit in range(10)), preprocessing, train, validation, test)
