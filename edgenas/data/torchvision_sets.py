"""Fashion-MNIST and CIFAR by torchvision's classes, which download them once.

Fashion-MNIST: H. Xiao et al., arXiv 1708.07747. CIFAR-10 and CIFAR-100: A. Krizhevsky, Learning multiple layers of
features from tiny images, 2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgenas.data.augmentation import Augmentation
from edgenas.data.cache_lock import cache_lock
from edgenas.data.data_set import DataSet, DataSetPreprocessing
from edgenas.data.images import Split, split_indices_by_class
from edgenas.data.torchvision_import import import_torchvision
from edgenas.errors import EdgeNASError
from edgenas.files import cache_folder

_VALIDATION_IMAGES = 2000  # of the training images; every evaluated subnet is run on all of them
_SPLIT_SEED = 0


def load_fashion_mnist() -> DataSet:
    """Return ``fashion_mnist``: 60,000 training and 10,000 test images of clothes, grey, 28x28."""
    return _load(
        "fashion_mnist", "FashionMNIST", (0.286,), (0.353,), Augmentation(turn=15.0, scale=0.1, shift=0.1, flip=True)
    )


def load_cifar10() -> DataSet:
    """Return ``cifar10``: 50,000 training and 10,000 test photos of ten classes, RGB, 32x32."""
    mean, std = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
    return _load("cifar10", "CIFAR10", mean, std, Augmentation(scale=0.1, shift=0.25, flip=True))


def load_cifar100() -> DataSet:
    """Return ``cifar100``: 50,000 training and 10,000 test photos of a hundred classes, RGB, 32x32."""
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    return _load("cifar100", "CIFAR100", mean, std, Augmentation(scale=0.1, shift=0.25, flip=True))


def _load(
    name: str, class_name: str, mean: Sequence[float], std: Sequence[float], augmentation: Augmentation
) -> DataSet:
    """Return a data set of torchvision; 2,000 of its training images are for validation, equally many of each class.

    Raises:
        MissingExtraError: torchvision is not installed.
        EdgeNASError: It is neither in the cache nor can be downloaded.
    """
    datasets = import_torchvision(name).datasets
    folder = cache_folder("data")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with cache_lock(folder / name):
            parts = [getattr(datasets, class_name)(str(folder), train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:  # torchvision raises RuntimeError for a damaged or missing file
        raise EdgeNASError(
            f"data set {name} cannot be downloaded to {folder} ({error}); check the network, or put its files there"
        ) from None
    (images, labels), (test_images, test_labels) = map(_arrays, parts)
    share = _VALIDATION_IMAGES / len(labels)
    validation, train, _ = split_indices_by_class(labels, (share, 1 - share), np.random.default_rng(_SPLIT_SEED))
    train_split, validation_split = (Split(images[each], labels[each], each) for each in (train, validation))
    test = Split(test_images, test_labels, np.arange(len(test_labels)))
    preprocessing = DataSetPreprocessing(3, 1 / 255, tuple(mean) * (3 // len(mean)), tuple(std) * (3 // len(std)))
    return DataSet(name, tuple(parts[0].classes), preprocessing, train_split, validation_split, test, augmentation)


def _arrays(part: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(part.data).astype(np.uint8), np.asarray(part.targets).astype(np.int64)
