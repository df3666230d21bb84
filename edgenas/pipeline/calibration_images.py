"""Images to calibrate exported models on: training images of the run, or those of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.data import ImageSize
from edgenas.data.images import IMAGE_SUFFIXES, map_in_threads, read_image
from edgenas.data.preprocess import preprocess
from edgenas.errors import UsageError, one_line
from edgenas.pipeline.workspace import Workspace

IMAGES = 200
_SPLIT_FROM = 41
_HELD_OUT = 5  # one image of so many
_FOLDER_SEED = 0
_STREAM = 3  # of the run's seed; training, evaluation and batch norm have others

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CalibrationImages:
    """Images as a model's inputs (N, C, H, W), a description of them, and the seed that drew them.

    ``sample`` is the first image, before preprocessing.
    """

    inputs: Floats
    sample: npt.NDArray[np.uint8]
    source: str
    seed: int


def draw_training_images(workspace: Workspace, size: ImageSize) -> CalibrationImages:
    """Draw ``IMAGES`` training images of the run's data set from its seed."""
    train, seed = workspace.data.train, workspace.seed
    chosen = np.random.default_rng([seed, _STREAM]).permutation(len(train))[:IMAGES]
    inputs = workspace.data.to_inputs(train.images[chosen], size)
    return CalibrationImages(
        inputs, train.images[chosen[0]], f"{len(chosen)} training images of {workspace.data.name}", seed
    )


def read_folder(folder: Path, settings: dict[str, Any]) -> CalibrationImages:
    """Read at most ``IMAGES`` images of a folder, drawn at random, and preprocess them.

    Raises UsageError when the folder or an image cannot be read, or holds no image.
    """
    paths = _shuffle_paths(folder)[:IMAGES]
    return _preprocess_images(paths, settings, f"{len(paths)} images of folder {folder.name}")


def split_folder(folder: Path, settings: dict[str, Any]) -> tuple[CalibrationImages, CalibrationImages]:
    """Read images of a folder to calibrate on, and a held-out fifth to compare on, at most ``IMAGES`` each.

    A folder of 40 images or fewer is too small to divide: both are the same.
    Raises UsageError as ``read_folder``.
    """
    paths = _shuffle_paths(folder)
    if len(paths) < _SPLIT_FROM:
        images = _preprocess_images(paths, settings, f"{len(paths)} images of folder {folder.name}")
        return images, replace(images, source=f"{images.source}, the same as for calibration")
    held = min(IMAGES, len(paths) // _HELD_OUT)
    shown = paths[held : held + IMAGES]
    return (
        _preprocess_images(shown, settings, f"{len(shown)} images of folder {folder.name}"),
        _preprocess_images(paths[:held], settings, f"{held} other images of folder {folder.name}"),
    )


def _shuffle_paths(folder: Path) -> list[Path]:
    """Return the paths of a folder's images in a random order, always the same."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be read ({error.strerror}); --calibration needs a folder of images"
        ) from None
    if not paths:
        raise UsageError(f"{folder}: holds no image ({', '.join(IMAGE_SUFFIXES)}), and calibration needs some")
    return [paths[index] for index in np.random.default_rng([_FOLDER_SEED, _STREAM]).permutation(len(paths))]


def _preprocess_images(paths: Sequence[Path], settings: dict[str, Any], source: str) -> CalibrationImages:
    def read(path: Path) -> npt.NDArray[np.uint8]:
        return _read(path, settings["channels"])

    ordered, settings = sorted(paths), {**settings, "layout": "NCHW"}
    inputs = map_in_threads(lambda path: preprocess(read(path), settings), ordered)
    (sample,) = map_in_threads(read, ordered[:1])
    return CalibrationImages(np.concatenate(inputs), sample, source, _FOLDER_SEED)


def _read(path: Path, channels: int) -> npt.NDArray[np.uint8]:
    try:
        return read_image(path, "L" if channels == 1 else "RGB")
    except Exception as error:  # Pillow's parsers raise whatever they run into
        reason = one_line(error) or type(error).__name__
        raise UsageError(f"{path}: cannot be read as an image ({reason}); remove or replace it") from None
