"""Calibration: the images that show how large a network's activations get, and the ranges taken from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import UsageError
from edgenas.files import suggest_nearest

Floats = npt.NDArray[np.float32]
METHODS = ("percentile", "minmax")
# Of all values of a tensor over all images, the share in percent that its range must hold on either side. On the
# demo's subnets 99.999 gave logits nearer to float than the extremes did, and 99.95 and less ones that were farther.
PERCENTILE = 99.999


@dataclass(frozen=True)
class Calibration:
    """Images for static quantisation and how ranges are taken from them.

    ``images`` (N, C, r, r) float32 are prepared as the network wants them.
    ``method`` is ``percentile``, which leaves out the outermost
    1 / 100000 of a tensor's values at either end, or ``minmax``. ``seed`` drew
    the images and ``source`` says what they are; both only go to the model
    card. Raises UsageError when the images cannot be used.
    """

    images: Floats
    method: str = "percentile"
    seed: int | None = None
    source: str = "images"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"unknown calibration method {self.method!r}{suggest_nearest(self.method, list(METHODS))}")
        check_images(self.images, "calibration images")


def check_images(images: Any, what: str) -> None:
    """Raise UsageError unless ``images`` are finite float32 of shape (N, C, r, r), N and all others above 0."""
    if not isinstance(images, np.ndarray) or images.dtype != np.float32:
        kind = getattr(images, "dtype", type(images).__name__)
        raise UsageError(f"{what} must be a float32 array, prepared as the model wants them, but are {kind}")
    if images.ndim != 4 or not images.size or images.shape[2] != images.shape[3]:
        raise UsageError(f"{what} must have shape (N, C, r, r), N above 0, but have {images.shape}")
    if not np.isfinite(images).all():
        raise UsageError(f"{what} hold NaN or infinity; prepare them again")


class Ranges:
    """The lower and upper end of each tensor's values over all images, gathered batch by batch.

    Percentiles are exact: only the outermost values are kept, which are few.
    """

    def __init__(self, method: str, batches: int) -> None:
        self._share = (100 - PERCENTILE) / 100 if method == "percentile" else 0.0
        self._batches = batches
        self._ends: dict[str, tuple[_Largest, _Largest]] = {}

    def add(self, name: str, values: Floats) -> None:
        """Count a batch of a tensor's values, which must be as many in each batch."""
        flat = values.ravel()
        if name not in self._ends:
            count = 1 + int(self._share * flat.size * self._batches)
            self._ends[name] = _Largest(count), _Largest(count)
        low, high = self._ends[name]
        low.add(-flat)
        high.add(flat)

    def result(self) -> dict[str, tuple[float, float]]:
        """The ends by tensor name; 0 and 1 of a tensor that was always 0: runtimes refuse the scale of no range."""
        found = {name: (-low.smallest(), high.smallest()) for name, (low, high) in self._ends.items()}
        return {name: ends if any(ends) else (0.0, 1.0) for name, ends in found.items()}


class _Largest:
    """The ``count`` largest of all values seen."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept = np.empty(0, np.float32)
        self._floor = np.float32(-np.inf)

    def add(self, values: Floats) -> None:
        self._kept = np.concatenate([self._kept, values[values > self._floor]])
        if len(self._kept) > 2 * self._count:
            self._cut()

    def smallest(self) -> float:
        self._cut()
        return float(self._kept.min())

    def _cut(self) -> None:
        if len(self._kept) > self._count:
            self._kept = np.partition(self._kept, -self._count)[-self._count :]
            self._floor = self._kept[0]
