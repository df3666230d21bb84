"""Turn an image into the model's input, as preprocessing.json beside this file says. Needs numpy only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def preprocess(image: np.ndarray, settings: dict[str, Any] | None = None) -> np.ndarray:
    """uint8 (H, W) or (H, W, C) -> float32 (1, channels, height, width): scaled, resized, normalised.

    In layout NHWC (1, height, width, channels). ``size`` is the height and the width, one number if they are equal.
    ``crop`` takes the middle square, that share of the shorter side; without it the whole image is resized. Resizing is
    bilinear with half-pixel centres; ``antialias`` averages over what becomes one pixel, as Pillow does. One grey
    channel is repeated. ``settings`` takes the place of preprocessing.json. Another type or shape raises ValueError.
    """
    if settings is None:
        settings = json.loads(Path(__file__).with_name("preprocessing.json").read_text(encoding="utf-8"))
    size, channels = settings["size"], settings["channels"]
    planes = np.moveaxis(image[..., None] if image.ndim == 2 else image, -1, 0)
    if image.dtype != np.uint8 or planes.ndim != 3 or not planes.size or len(planes) not in (1, channels):
        raise ValueError(f"need uint8 (H, W) or (H, W, {channels}), but got {image.dtype} {image.shape}")
    square = (settings.get("crop") or 0) * min(planes.shape[1:])
    height, width = (size, size) if isinstance(size, int) else size
    rows, columns = (
        _bilinear(target, side, square or side, settings.get("antialias"))
        for target, side in ((height, planes.shape[1]), (width, planes.shape[2]))
    )
    resized = rows @ (planes.astype(np.float32) * np.float32(settings["scale"])) @ columns.T
    mean, std = (np.array(settings[name], np.float32).reshape(channels, 1, 1) for name in ("mean", "std"))
    prepared = ((resized - mean) / std)[None]
    return np.ascontiguousarray(np.moveaxis(prepared, 1, -1)) if settings.get("layout") == "NHWC" else prepared


def _bilinear(size: int, source: int, part: float, antialias: bool | None) -> np.ndarray:
    """Matrix (size, source) that resizes the middle ``part`` pixels of an axis; a row weighs the pixels near one."""
    step = part / size
    centre = (source - part) / 2 + (np.arange(size) + 0.5) * step - 0.5
    reach = max(1.0, step) if antialias else 1.0
    weights = np.maximum(0, 1 - np.abs(centre[:, None] - np.arange(source)) / reach)
    matrix: np.ndarray = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return matrix
