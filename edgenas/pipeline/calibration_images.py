"""Images to calibrate exported models on: training images of the run, or those of a folder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.data import ImageSize
from edgenas.data.preprocess import preprocess
from edgenas.errors import UsageError
from edgenas.pipeline.workspace import Workspace

IMAGES = 200
_SPLIT_FROM = 41
_HELD_OUT = 5  # one image of so many
_FOLDER_SEED = 0
_STREAM = 3  # of the run's seed; training, evaluation and batch norm have others
_SUFFIXES = (".png", ".jpg", ".jpeg")
_MOST_PIXELS = 50_000_000

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
    """Read at most ``IMAGES`` PNG and JPEG images of a folder, drawn at random, and preprocess them.

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
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be read ({error.strerror}); --calibration needs a folder of images"
        ) from None
    if not paths:
        raise UsageError(f"{folder}: holds no image (PNG or JPEG), and calibration needs some")
    return [paths[index] for index in np.random.default_rng([_FOLDER_SEED, _STREAM]).permutation(len(paths))]


def _preprocess_images(paths: Sequence[Path], settings: dict[str, Any], source: str) -> CalibrationImages:
    images = [_read_image(path, settings["channels"]) for path in sorted(paths)]
    inputs = np.concatenate([preprocess(image, {**settings, "layout": "NCHW"}) for image in images])
    return CalibrationImages(inputs, images[0], source, _FOLDER_SEED)


def _read_image(path: Path, channels: int) -> npt.NDArray[np.uint8]:
    """Read an image file as bytes (H, W) or (H, W, 3)."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size and damaged metadata: both are checked here
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise UsageError(
                        f"{path}: has {image.width} x {image.height} pixels, over {_MOST_PIXELS}; shrink it"
                    )
                if image.mode.startswith(("I", "F")):
                    raise UsageError(f"{path}: has more than 8 bits a channel; save it with 8")
                grey = image.mode in ("1", "L") or channels == 1
                return np.asarray(image.convert("L" if grey else "RGB"))
    except UsageError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{path}: cannot be read as an image ({reason}); remove or replace it") from None
