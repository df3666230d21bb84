"""Finding a data set by its name, its folder, or the function that makes it."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgenas.data.data_set import DataSet, check_data_set
from edgenas.data.image_folder import load_image_folder
from edgenas.data.images import ImageFiles, ImagePaths, Images
from edgenas.data.source import DataSource
from edgenas.errors import EdgeNASError, UsageError, one_line
from edgenas.files import canonical_json_bytes
from edgenas.registry import DATA_SETS


def load_data(source: str | Mapping[str, Any] | DataSource | DataSet) -> DataSet:
    """Return a data set.

    Args:
        source: Its name, the path of a folder of images, or ``module:function``; a ``DataSource``, or its fields as
            a mapping; or a data set that this function returned.

    Raises:
        UsageError: The name or a key is unknown, with the nearest known ones; nothing can be trained on it; or the
            images are not those of the mapping's ``sha256``.
    """
    if isinstance(source, DataSet):
        return source
    wanted = source if isinstance(source, DataSource) else DataSource.parse(source)
    data_set = _load_by_name(wanted)
    if wanted.augmentation is not None:
        data_set = replace(data_set, augmentation=wanted.augmentation)
    check_data_set(data_set, data_set.name)
    data_set = _with_int64_labels(data_set)
    if wanted.is_code:
        _refuse_images_of_two_parts(data_set)
        data_set = replace(data_set, sha256=data_set.sha256 or _digest(data_set))
    if wanted.sha256 not in ("", data_set.sha256):
        raise UsageError(
            f"data {wanted.name}: its images or their split are not those of before; put them back as they were, or"
            " train in a new run folder"
        )
    return replace(data_set, source=wanted)


def _load_by_name(wanted: DataSource) -> DataSet:
    name = wanted.name
    if "/" in name or (name not in DATA_SETS.names() and Path(name).is_dir()):
        return load_image_folder(Path(name), wanted.skip_bad)
    if wanted.skip_bad:
        raise UsageError(f"data {name}: --skip-bad is for folders of images")
    load = (
        _import_function(name)
        if wanted.is_code
        else DATA_SETS.load(name, refusal="no folder and no data set is called")
    )
    try:
        made = load()
    except EdgeNASError:
        raise
    except (Exception, SystemExit) as error:  # whatever somebody else's function raises
        raise UsageError(f"data set {name!r} cannot be made ({_quote(error)})") from error
    if not isinstance(made, DataSet):
        raise UsageError(f"data set {name!r}: its function must return a DataSet, but got {type(made).__name__}")
    if wanted.is_code:
        return replace(made, name=name)
    check_data_set(made, name)
    return made


def _import_function(name: str) -> Callable[[], Any]:
    """Import ``module:function``, also from the working directory, after all installed modules.

    Only a function that says that it returns a DataSet is called: the name may come with somebody else's run folder,
    and many functions of Python do something when they are called.
    """
    module, _, path = name.partition(":")
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.append(folder)  # for good: the module may import others when it is used
    try:
        function: Any = functools.reduce(getattr, path.split("."), importlib.import_module(module))
        result = inspect.signature(function).return_annotation
    except (Exception, SystemExit) as error:  # whatever somebody else's module raises
        raise UsageError(
            f"data {name!r}: cannot be imported from {folder} or the installed packages ({_quote(error)})"
        ) from error
    if str(getattr(result, "__name__", result)).rpartition(".")[2] != "DataSet":
        raise UsageError(f"data {name!r}: must be a function that says what it returns: def load() -> DataSet")
    make: Callable[[], Any] = function
    return make


def _with_int64_labels(data: DataSet) -> DataSet:
    """Return a data set whose labels, integers of any type, are such as torch's losses take."""
    train, validation, test = (
        replace(split, labels=split.labels.astype(np.int64)) for split in (data.train, data.validation, data.test)
    )
    return replace(data, train=train, validation=validation, test=test)


def _refuse_images_of_two_parts(data: DataSet) -> None:
    """Raise UsageError for an image that stands in train and in test, which makes an accuracy too good."""
    places = {image: place for place, image in enumerate(_identify(data.train.images))}
    shared = [(places[image], place) for place, image in enumerate(_identify(data.test.images)) if image in places]
    if shared:
        more = f" (and {len(shared) - 1} more)" if len(shared) > 1 else ""
        raise UsageError(
            f"data {data.name}: image {shared[0][0]} of train and image {shared[0][1]} of test (counted from 0) are one"
            f" image{more}; remove one of each"
        )


def _identify(images: Images | ImageFiles) -> Sequence[bytes | Path]:
    """Return of each image what only an equal one shares; nothing of files that are no ``ImagePaths``."""
    if isinstance(images, ImagePaths):
        return images.paths
    if isinstance(images, ImageFiles):
        return ()
    return [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]


def _digest(data: DataSet) -> str:
    """Return the SHA-256 of images, labels and places: a function that shuffles anew is found by it.

    Of files it takes paths and sizes; of ``ImageFiles`` of the user's own, labels and places only.
    """
    digest = hashlib.sha256()
    for split in (data.train, data.validation, data.test):
        for array in (split.labels, split.indices, split.images):
            if isinstance(array, np.ndarray):
                digest.update(f"{array.dtype} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
            elif isinstance(array, ImagePaths):
                digest.update(canonical_json_bytes([[str(path), _size(path)] for path in array.paths]))
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); put it back, or leave it out") from None


def _quote(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}")
