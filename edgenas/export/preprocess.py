"""Turn an image into the model's input, as preprocessing.json beside this file says. Needs numpy only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def preprocess(image: np.ndarray, settings: dict[str, Any] | None = None) -> np.ndarray:
    """uint8 (H, W) or (H, W, C) -> float32 (1, channels, size, size): scaled, resized, normalised.

    Resizing is bilinear with half-pixel centres and without antialiasing. One grey
    channel is repeated. ``settings`` takes the place of preprocessing.json. Raises
    ValueError for another type or shape.
    """
    if settings is None:
        settings = json.loads(Path(__file__).with_name("preprocessing.json").read_text(encoding="utf-8"))
    size, channels = settings["size"], settings["channels"]
    planes = np.moveaxis(image[..., None] if image.ndim == 2 else image, -1, 0)
    if image.dtype != np.uint8 or planes.ndim != 3 or not planes.size or len(planes) not in (1, channels):
        raise ValueError(f"need uint8 (H, W) or (H, W, {channels}), but got {image.dtype} {image.shape}")
    scaled = planes.astype(np.float32) * np.float32(settings["scale"])
    resized = _bilinear(size, planes.shape[1]) @ scaled @ _bilinear(size, planes.shape[2]).T
    mean, std = (np.array(settings[name], np.float32).reshape(channels, 1, 1) for name in ("mean", "std"))
    prepared: np.ndarray = ((resized - mean) / std)[None]
    return prepared


def _bilinear(size: int, source: int) -> np.ndarray:
    """Matrix (size, source) that resizes one axis: each row has the weights of the two nearest pixels."""
    centre = ((np.arange(size) + 0.5) * source / size - 0.5).clip(0, source - 1)
    weights: np.ndarray = np.maximum(0, 1 - np.abs(centre[:, None] - np.arange(source)))
    return weights.astype(np.float32)
