"""A folder of images as a data set: classes as its subfolders, or the same below train, val and test."""

from __future__ import annotations

import json
import os
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from edgenas.data.data_set import (
    Augmentation,
    DataSet,
    DataSetPreprocessing,
    ImageFiles,
    Images,
    Labels,
    Split,
    split_indices_by_class,
)
from edgenas.errors import UsageError, one_line
from edgenas.files import cache_folder, digest_of_inputs, sha256_hex, write_bytes

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"}
_TRAIN, _VALIDATION, _TEST = ("train",), ("val", "valid", "validation"), ("test",)
_SHARES = (0.8, 0.1)  # for training and validation, of a folder that is not split
_SPLIT_SEED = 0
_MAX_PIXELS = 2**27  # of one image; a larger one may be a bomb
_SHOWN = 3  # names in a message
_STRONG_IMBALANCE = 10
# Mean and deviation of ImageNet's training images, as torchvision's networks take them.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class _Files(ImageFiles):
    """Files that are read as RGB; final."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Images:
        return _read_image(self.paths[index])

    def select(self, indices: Labels) -> Self:
        return type(self)(tuple(self.paths[index] for index in indices))


def load_image_folder(folder: Path) -> DataSet:
    """Return the data set of a folder of images, JPEG, PNG, BMP, WebP or PPM, of any size.

    Either its subfolders are the classes; then 80% of each class are for training, 10% for validation and 10% for
    testing, always the same ones. Or they are ``train``, ``test`` and perhaps ``val``, each with the classes below;
    without ``val``, a tenth of each class of ``train`` is for validation.

    Every image is read once before training begins, and again only when it was changed.

    Raises:
        UsageError: There are fewer than two classes, an empty class, classes that training has not, images that cannot
            be read, or images that stand in two parts; the first are named.
    """
    root = folder.resolve()
    if not root.is_dir():
        raise UsageError(f"data {folder}: is no folder and no data set's name; give a folder of images")
    parts = {names[0]: _find_subfolder(root, names) for names in (_TRAIN, _VALIDATION, _TEST)}
    if parts["train"] is None:
        found = {"all": _list_images(root)}
    else:
        if parts["test"] is None:
            raise UsageError(f"data {folder}: has a folder train and none named test; add it, for the final accuracy")
        found = {name: _list_images(path) for name, path in parts.items() if path is not None}
    labels = tuple(sorted(next(iter(found.values()))))
    if len(labels) < 2:
        raise UsageError(f"data {folder}: needs at least two classes, each a folder of images, but has {len(labels)}")
    for name, images in found.items():
        _check_classes(folder, name, images, labels)
    digests = _check_images(folder, [path for images in found.values() for each in images.values() for path in each])
    _check_parts_apart(folder, found, digests)
    return _make_data_set(root, labels, found)


def _make_data_set(root: Path, labels: tuple[str, ...], found: Mapping[str, Mapping[str, Sequence[Path]]]) -> DataSet:
    rng = np.random.default_rng(_SPLIT_SEED)
    splits = {name: _make_split(images, labels) for name, images in found.items()}
    if "all" in splits:
        whole = splits["all"]
        train, validation, test = (_select(whole, part) for part in split_indices_by_class(whole.labels, _SHARES, rng))
    else:
        train, test = splits["train"], splits["test"]
        if "val" in splits:
            validation = splits["val"]
        else:
            kept, drawn, _ = split_indices_by_class(train.labels, (0.9, 0.1), rng)
            train, validation = _select(train, kept), _select(train, drawn)
    counts = np.bincount(train.labels, minlength=len(labels))
    odd: tuple[str, ...] = ()
    if counts.max() > _STRONG_IMBALANCE * counts.min():
        most, least = labels[int(counts.argmax())], labels[int(counts.argmin())]
        odd = (
            f"class {most} has {counts.max()} training images and {least} has {counts.min()}: accuracy says little of"
            " rare classes; add images of them, or remove some of the others",
        )
    preprocessing = DataSetPreprocessing(3, 1 / 255, _MEAN, _STD, crop=1.0, antialias=True)
    augmentation = Augmentation(crop=(0.35, 1.0), flip=True)
    return DataSet(str(root), labels, preprocessing, train, validation, test, augmentation, odd)


def _find_subfolder(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _list_images(root: Path) -> dict[str, list[Path]]:
    """Return the images of each class, the name of a folder, sorted; hidden files and folders are left out."""
    classes = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return {
        path.name: sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".") and file.is_file()
        )
        for path in classes
    }


def _check_classes(folder: Path, part: str, images: Mapping[str, Sequence[Path]], labels: Sequence[str]) -> None:
    where = f"data {folder}" if part == "all" else f"data {folder / part}"
    if unknown := sorted(set(images) - set(labels)):
        raise UsageError(f"{where}: class {unknown[0]} has no training images; add some, or remove its folder")
    if empty := [name for name, files in images.items() if not files]:
        raise UsageError(f"{where}: class {empty[0]} has no image; add some, or remove its folder")


def _check_images(folder: Path, paths: Sequence[Path]) -> dict[Path, str]:
    """Return the SHA-256 of each file; raise UsageError, naming the first, where any cannot be read as an image.

    What was found is kept until a file changes, because reading all takes long.
    """
    states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    kept = cache_folder("images") / f"{digest_of_inputs(states)}.json"
    try:
        digests = json.loads(kept.read_bytes())
        if isinstance(digests, list) and len(digests) == len(paths) and all(isinstance(each, str) for each in digests):
            return dict(zip(paths, digests, strict=True))
    except (OSError, ValueError):
        pass
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(_digest_or_problem, paths))
    problems = [problem for _, problem in found if problem]
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise UsageError(
            f"data {folder}: {len(problems)} of {len(paths)} images cannot be read:"
            f" {', '.join(problems[:_SHOWN])}{more}; remove or replace them"
        )
    digests = [digest for digest, _ in found]
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(kept, json.dumps(digests).encode())
    return dict(zip(paths, digests, strict=True))


def _digest_or_problem(path: Path) -> tuple[str, str]:
    try:
        _read_image(path)
        return sha256_hex(path.read_bytes()), ""
    except Exception as error:  # Pillow's parsers raise whatever they run into
        return "", f"{path} ({one_line(error)})"


def _check_parts_apart(
    folder: Path, found: Mapping[str, Mapping[str, Sequence[Path]]], digests: Mapping[Path, str]
) -> None:
    """Raise UsageError for an image that stands in two parts, or in two classes of a folder that is not split."""
    places: defaultdict[str, dict[tuple[str, str], Path]] = defaultdict(dict)
    for part, images in found.items():
        for label, paths in images.items():
            for path in paths:
                places[digests[path]][part, label if part == "all" else ""] = path
    twice = [[path for _, path in sorted(groups.items())] for groups in places.values() if len(groups) > 1]
    if twice:
        first, second = twice[0][:2]
        raise UsageError(
            f"data {folder}: {len(twice)} images stand in two places, the first {first} and {second};"
            " remove one of each"
        )


def _make_split(images: Mapping[str, Sequence[Path]], labels: Sequence[str]) -> Split:
    paths = [path for label in labels for path in images.get(label, ())]
    numbers = [number for number, label in enumerate(labels) for _ in images.get(label, ())]
    return Split(_Files(tuple(paths)), np.array(numbers, dtype=np.int64), np.arange(len(paths)))


def _select(split: Split, rows: Labels) -> Split:
    return Split(split.images[rows], split.labels[rows], split.indices[rows])


def _read_image(path: Path) -> Images:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(f"it has {image.width} x {image.height} pixels, more than {_MAX_PIXELS}")
            return np.asarray(image.convert("RGB"))
