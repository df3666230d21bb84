"""A folder of images as a data set: classes as its subfolders, or the same below train, val and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgenas.data.augmentation import Augmentation
from edgenas.data.data_set import DataSet, DataSetPreprocessing
from edgenas.data.image_check import check_images
from edgenas.data.images import IMAGE_SUFFIXES, ImagePaths, Split, split_indices_by_class
from edgenas.errors import UsageError
from edgenas.files import canonical_json_bytes, sha256_hex

_PARTS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_WHOLE = "all"  # the only part of a folder that is not split
_SHARES = (0.8, 0.1)  # of it, for training and validation
_SPLIT_SEED = 0
_SHOWN = 3  # names in a message
_STRONG_IMBALANCE = 10
# Mean and deviation of ImageNet's training images, as torchvision's networks take them.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_Classes = Mapping[str, Mapping[str, Path]]  # of each part the folders of its classes


@dataclass(frozen=True)
class _Image:
    """A file and its place; ``sha256`` is known once it was read."""

    part: str
    label: str
    path: Path
    sha256: str = ""


def load_image_folder(folder: Path, skip_bad: bool = False) -> DataSet:
    """Return the data set of a folder of images, JPEG, PNG, BMP, WebP or PPM, of any size.

    Either its subfolders are the classes; then 80% of each class are for training, 10% for validation and 10% for
    testing, always the same ones. Or they are ``train``, ``test`` and perhaps ``val``, each with the classes below;
    without ``val``, a tenth of each class of ``train`` is for validation. Folders beside these are left out, with a
    warning.

    Every image is read once before training begins, and again only when it was changed. Of equal files in a class one
    is taken.

    Args:
        folder: The folder.
        skip_bad: Whether images that cannot be read are left out instead of refused.

    Raises:
        UsageError: There are fewer than two classes, an empty class, classes that training has not, images that cannot
            be read, or images that stand in two parts or classes; the first are named.
    """
    root = folder.resolve()
    classes, beside = _find_classes(folder, root)
    labels = tuple(sorted(next(iter(classes.values()))))
    if len(labels) < 2:
        raise UsageError(f"data {folder}: needs at least two classes, each a folder of images, but has {len(labels)}")
    listed = [
        _Image(part, label, path)
        for part, folders in classes.items()
        for label, class_folder in folders.items()
        for path in _list_images(class_folder)
    ]
    _require_filled(folder, classes, listed)
    readable, skipped = _read_all(folder, root, listed, skip_bad)
    images, dropped = _drop_copies(folder, root, readable)
    _require_filled(folder, classes, images)
    train, validation, test = splits = _make_splits(images, labels)
    preprocessing = DataSetPreprocessing(3, 1 / 255, IMAGENET_MEAN, IMAGENET_STD, crop=1.0, antialias=True)
    augmentation = Augmentation(crop=(0.35, 1.0), flip=True)
    warnings = (
        *beside,
        *_describe_other_files(root, classes),
        *skipped,
        *dropped,
        *_describe_rare_classes(labels, splits),
    )
    sha256 = sha256_hex(canonical_json_bytes([[image.part, image.label, image.sha256] for image in images]))
    return DataSet(str(root), labels, preprocessing, train, validation, test, augmentation, warnings, sha256)


def _find_classes(folder: Path, root: Path) -> tuple[_Classes, list[str]]:
    """Return the folders of classes of each part, and a line on folders beside the parts.

    A class may be called train: among other folders ``train`` is a part only where folders with images are below it.
    Raises UsageError where there is no such folder, or no test part.
    """
    if not root.is_dir():
        raise UsageError(f"data {folder}: is no folder and no data set's name; give a folder of images")
    folders = _list_folders(root)
    found = {part: next((folders[name] for name in names if name in folders), None) for part, names in _PARTS.items()}
    train = found["train"]
    beside = [name for name, path in folders.items() if path not in found.values()]
    if train is None or (beside and not any(map(_list_images, _list_folders(train).values()))):
        return {_WHOLE: folders}, []
    if found["test"] is None:
        raise UsageError(f"data {folder}: has a folder train and none named test; add it, for the final accuracy")
    classes = {part: _list_folders(path) for part, path in found.items() if path is not None}
    for part, folders in classes.items():
        if unknown := sorted(set(folders) - set(classes["train"])):
            raise UsageError(
                f"data {folder / part}: class {unknown[0]} has no training images; add some, or remove its folder"
            )
    if not beside:
        return classes, []
    return classes, [f"{_name_first(beside)}: beside train and test, so left out; move images to be used below these"]


def _list_folders(root: Path) -> dict[str, Path]:
    """Return the subfolders by name, sorted; hidden ones are left out."""
    return {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")}


def _list_images(folder: Path) -> list[Path]:
    """Return the image files in a folder and below, sorted; hidden ones are left out."""
    return [path for path in _list_files(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def _list_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.name.startswith(".") and path.is_file())


def _describe_other_files(root: Path, classes: _Classes) -> list[str]:
    """Return a line on files beside the images of classes, which may be photos in another format, such as HEIC."""
    files = [path for folders in classes.values() for folder in folders.values() for path in _list_files(folder)]
    names = [str(path.relative_to(root)) for path in files if path.suffix.lower() not in IMAGE_SUFFIXES]
    if not names:
        return []
    known = ", ".join(IMAGE_SUFFIXES)
    return [f"files that are not {known} are left out ({len(names)}): {_name_first(names)}; convert those to be used"]


def _require_filled(folder: Path, classes: _Classes, images: Sequence[_Image]) -> None:
    """Raise UsageError for a class without images in a part that has its folder."""
    filled = {(image.part, image.label) for image in images}
    for part, folders in classes.items():
        where = folder if part == _WHOLE else folder / part
        if empty := [label for label in folders if (part, label) not in filled]:
            raise UsageError(
                f"data {where}: class {empty[0]} has no image ({', '.join(IMAGE_SUFFIXES)}); add some, or remove its"
                " folder"
            )


def _read_all(folder: Path, root: Path, images: Sequence[_Image], skip_bad: bool) -> tuple[list[_Image], list[str]]:
    """Return the images that can be read, and a line on the others; raise UsageError unless they may be left out."""
    checked = check_images(root, [image.path for image in images])
    readable = [
        replace(image, sha256=result.sha256)
        for image, result in ((image, checked[image.path]) for image in images)
        if not result.problem
    ]
    bad = [f"{path.relative_to(root)} ({result.problem})" for path, result in checked.items() if result.problem]
    if not bad:
        return readable, []
    problem = f"{len(bad)} of {len(images)} images cannot be read: {_name_first(bad)}"
    if not skip_bad:
        raise UsageError(f"data {folder}: {problem}; remove or replace them, or leave them out with --skip-bad")
    return readable, [f"{problem}; they are left out"]


def _drop_copies(folder: Path, root: Path, images: Sequence[_Image]) -> tuple[list[_Image], list[str]]:
    """Return the images without copies of others in the same class, and a line on these.

    Raises UsageError for an image that stands in two parts, which makes an accuracy too good, or in two classes.
    """
    firsts: dict[str, _Image] = {}
    copies = []
    apart: list[tuple[_Image, _Image]] = []
    for image in images:
        first = firsts.setdefault(image.sha256, image)
        if (image.part, image.label) != (first.part, first.label):
            apart.append((first, image))
        elif image is not first:
            copies.append(image)
    if apart:
        one, other = (image.path.relative_to(root) for image in apart[0])
        more = f", as are {len(apart) - 1} other pairs" if len(apart) > 1 else ""
        raise UsageError(
            f"data {folder}: {one} and {other} are one image in two parts or classes{more}; remove one of each"
        )
    if not copies:
        return list(images), []
    names = [str(image.path.relative_to(root)) for image in copies]
    kept = [image for image in images if firsts[image.sha256] is image]
    return kept, [f"copies of other images in their class are left out ({len(copies)}): {_name_first(names)}"]


def _make_splits(images: Sequence[_Image], labels: Sequence[str]) -> tuple[Split, Split, Split]:
    """Return the images for training, validation and testing."""
    parts = {part: _make_split([image for image in images if image.part == part], labels) for part in (_WHOLE, *_PARTS)}
    rng = np.random.default_rng(_SPLIT_SEED)
    if len(whole := parts[_WHOLE]):
        train, validation, test = map(whole.select, split_indices_by_class(whole.labels, _SHARES, rng))
        return train, validation, test
    train, validation, test = (parts[part] for part in _PARTS)
    if not len(validation):
        kept, drawn, _ = split_indices_by_class(train.labels, (0.9, 0.1), rng)
        train, validation = train.select(kept), train.select(drawn)
    return train, validation, test


def _make_split(images: Sequence[_Image], labels: Sequence[str]) -> Split:
    numbers = {label: number for number, label in enumerate(labels)}
    return Split(
        ImagePaths(tuple(image.path for image in images)),
        np.array([numbers[image.label] for image in images], dtype=np.int64),
        np.arange(len(images)),
    )


def _describe_rare_classes(labels: Sequence[str], splits: Sequence[Split]) -> list[str]:
    """Return a line where a class has far fewer training images than another, or none in another part."""
    train, *others = (np.bincount(split.labels, minlength=len(labels)) for split in splits)
    lines = []
    if train.max() >= _STRONG_IMBALANCE * train.min():
        most, least = labels[int(train.argmax())], labels[int(train.argmin())]
        lines.append(
            f"class {most} has {train.max()} training images and {least} has {train.min()}: accuracy says little of"
            " rare classes; add images of them, or remove some of the others"
        )
    for name, counts in zip(("validation", "test"), others, strict=True):
        if missing := [label for label, count in zip(labels, counts, strict=True) if not count]:
            lines.append(f"{_name_first(missing)}: no {name} image, so that accuracy says nothing of them; add images")
    return lines


def _name_first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
