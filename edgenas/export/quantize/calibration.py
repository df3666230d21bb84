"""Calibration of static quantization: images, and the ranges of activations over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import UsageError
from edgenas.files import format_suggestion

Floats = npt.NDArray[np.float32]
METHODS = ("percentile", "minmax")
# Percent of a tensor's values over all images that its range must cover on either side. On the demo's subnets 99.999
# gave smaller errors of logits than the extremes, and 99.95 and less gave larger ones.
PERCENTILE = 99.999


@dataclass(frozen=True)
class Calibration:
    """The images of static quantization and the method that takes ranges from them.

    Args:
        images: float32 (N, C, H, W), preprocessed.
        method: ``percentile`` ignores the outermost 1 / 100000 of a tensor's values at either end; ``minmax`` does not.
        seed: seed that drew the images, for the model card.
        source: description of the images, for the model card.

    Raises:
        UsageError: when the images cannot be used or the method is unknown.
    """

    images: Floats
    method: str = "percentile"
    seed: int | None = None
    source: str = "images"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(
                f"unknown calibration method {self.method!r}{format_suggestion(self.method, list(METHODS))}"
            )
        check_images(self.images, "calibration images")


def check_images(images: Any, name: str) -> None:
    """Raise UsageError unless ``images`` are finite float32 of shape (N, C, H, W), all above 0."""
    if not isinstance(images, np.ndarray) or images.dtype != np.float32:
        dtype = getattr(images, "dtype", type(images).__name__)
        raise UsageError(f"{name} must be a float32 array, prepared as the model wants them, but are {dtype}")
    if images.ndim != 4 or not images.size:
        raise UsageError(f"{name} must have shape (N, C, H, W), all above 0, but have {images.shape}")
    if not np.isfinite(images).all():
        raise UsageError(f"{name} hold NaN or infinity; prepare them again")


class Ranges:
    """The range of each tensor's values over all images, gathered batch by batch.

    Percentiles are exact: only the few outermost values are kept.
    """

    def __init__(self, method: str, batches: int) -> None:
        self._tail_share = (100 - PERCENTILE) / 100 if method == "percentile" else 0.0
        self._batches = batches
        self._tails: dict[str, tuple[_LargestValues, _LargestValues]] = {}

    def add(self, name: str, values: Floats) -> None:
        """Add a batch of a tensor's values; all batches have equally many."""
        flat = values.ravel()
        if name not in self._tails:
            count = 1 + int(self._tail_share * flat.size * self._batches)
            self._tails[name] = _LargestValues(count), _LargestValues(count)
        low, high = self._tails[name]
        low.add(-flat)
        high.add(flat)

    def result(self) -> dict[str, tuple[float, float]]:
        """Return (low, high) of each tensor; (0, 1) if it was always 0, because runtimes refuse an empty range."""
        ranges = {name: (-low.smallest(), high.smallest()) for name, (low, high) in self._tails.items()}
        return {name: ends if any(ends) else (0.0, 1.0) for name, ends in ranges.items()}


class _LargestValues:
    """The ``count`` largest of all values that were added."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._values = np.empty(0, np.float32)
        self._threshold = np.float32(-np.inf)

    def add(self, values: Floats) -> None:
        self._values = np.concatenate([self._values, values[values > self._threshold]])
        if len(self._values) > 2 * self._count:
            self._drop_smaller()

    def smallest(self) -> float:
        self._drop_smaller()
        return float(self._values.min())

    def _drop_smaller(self) -> None:
        if len(self._values) > self._count:
            self._values = np.partition(self._values, -self._count)[-self._count :]
            self._threshold = self._values[0]
