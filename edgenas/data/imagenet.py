"""ImageNet by torchvision's class, from the archives that its users are given.

O. Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, arXiv 1409.0575.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edgenas.data.augmentation import Augmentation
from edgenas.data.cache_lock import cache_lock
from edgenas.data.data_set import DataSet, DataSetPreprocessing
from edgenas.data.image_folder import IMAGENET_MEAN, IMAGENET_STD
from edgenas.data.images import ImagePaths, Split, split_indices_by_class
from edgenas.data.torchvision_import import import_torchvision
from edgenas.errors import UsageError, one_line
from edgenas.files import cache_folder

_IMAGES = {"train": 1_281_167, "val": 50_000}
_CLASSES = 1000
_VALIDATION_IMAGES = 10_000  # of the training images, as Once-for-All's authors took
_SPLIT_SEED = 0


def load_imagenet() -> DataSet:
    """Return ``imagenet``: 1,281,167 training photos of a thousand classes, and its validation images for testing.

    10,000 of the training images, the same share of each class, are for validation. Images are read when they are used.

    Raises:
        MissingExtraError: torchvision is not installed.
        UsageError: The archives are missing, or were unpacked in part.
    """
    datasets = import_torchvision("imagenet").datasets
    folder = cache_folder("data") / "imagenet"
    with cache_lock(folder):
        parts = {part: _load_part(datasets.ImageNet, folder, part) for part in _IMAGES}
    (paths, labels), (test_paths, test_labels) = (_read_places(part) for part in parts.values())
    share = _VALIDATION_IMAGES / len(labels)
    validation, train, _ = split_indices_by_class(labels, (share, 1 - share), np.random.default_rng(_SPLIT_SEED))
    whole = Split(paths, labels, np.arange(len(labels)))
    return DataSet(
        "imagenet",
        _name_classes(parts["train"]),
        DataSetPreprocessing(3, 1 / 255, IMAGENET_MEAN, IMAGENET_STD, crop=0.875, antialias=True),
        whole.select(train),
        whole.select(validation),
        Split(test_paths, test_labels, np.arange(len(test_labels))),
        Augmentation(crop=(0.08, 1.0), flip=True),
    )


def _load_part(make: Any, folder: Path, part: str) -> Any:
    """Return torchvision's data set of a part; it unpacks the archives at the first time, which takes long."""
    try:
        loaded = make(str(folder), split=part)
    except (OSError, RuntimeError) as error:  # RuntimeError: an archive is missing or damaged
        raise UsageError(
            f"data imagenet: put ILSVRC2012_devkit_t12.tar.gz, ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from"
            f" image-net.org into {folder}, or a link to a folder that torchvision unpacked ({one_line(error)})"
        ) from None
    if (len(loaded), len(loaded.classes)) != (_IMAGES[part], _CLASSES):
        raise UsageError(
            f"data imagenet: {folder / part} has {len(loaded)} images of {len(loaded.classes)} classes, not"
            f" {_IMAGES[part]} of {_CLASSES}; remove it to unpack the archive again, or name another folder as data"
        )
    return loaded


def _read_places(part: Any) -> tuple[ImagePaths, np.ndarray]:
    paths, labels = zip(*part.samples, strict=True)
    return ImagePaths(tuple(map(Path, paths))), np.array(labels, dtype=np.int64)


def _name_classes(part: Any) -> tuple[str, ...]:
    """Return the first word of each class, with its WordNet id where two classes have the same."""
    words = [names[0] for names in part.classes]
    counts = Counter(words)
    return tuple(
        word if counts[word] == 1 else f"{word} ({wnid})" for word, wnid in zip(words, part.wnids, strict=True)
    )
