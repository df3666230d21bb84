"""Calibration images and the ranges taken from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

from edgenas.errors import UsageError
from edgenas.export.quantize.calibration import Calibration, Ranges

IMAGES = np.zeros((2, 3, 4, 4), np.float32)
values = hypothesis_numpy.arrays(
    np.float32, (3, 50), elements=st.floats(-1e3, 1e3, width=32, allow_subnormal=False).filter(bool)
)


@pytest.mark.parametrize(
    ("images", "rule"),
    [
        (IMAGES.astype(np.float64), "float32"),
        (IMAGES[:0], "all above 0"),
        (IMAGES[0], r"\(3, 4, 4\)"),
        (IMAGES[:, :, :0], "all above 0"),
        (IMAGES + np.float32(np.nan), "NaN"),
        (IMAGES - np.float32(np.inf), "infinity"),
        ([[1.0]], "list"),
    ],
)
def test_images_that_cannot_be_used_are_refused(images: np.ndarray, rule: str) -> None:
    """Another type, shape or number, and values that are none, are refused with the rule."""
    with pytest.raises(UsageError, match=rule):
        Calibration(images)


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    """A misspelt method gets the one that was meant."""
    with pytest.raises(UsageError, match="did you mean 'percentile'"):
        Calibration(IMAGES, "percentiles")


@given(values)
def test_extremes_are_those_of_all_batches(batches: np.ndarray) -> None:
    """``minmax`` gives the smallest and the largest of all values."""
    ranges = Ranges("minmax", len(batches))
    for batch in batches:
        ranges.add("x", batch)
    assert ranges.result() == {"x": (float(batches.min()), float(batches.max()))}


@pytest.mark.parametrize("seed", range(3))
def test_percentiles_leave_out_the_outermost_values_of_all_batches(seed: int) -> None:
    """Of 40 batches of 10000 values, 1 / 100000 at either end are 4: the range ends at the fifth from outside."""
    batches = np.random.default_rng(seed).standard_normal((40, 100, 100), dtype=np.float32)
    ranges = Ranges("percentile", len(batches))
    for batch in batches:
        ranges.add("x", batch)
    ordered = np.sort(batches, axis=None)
    assert ranges.result()["x"] == (float(ordered[4]), float(ordered[-5]))


def test_percentiles_of_few_values_are_their_extremes() -> None:
    """Of fewer than 100000 values none is left out."""
    ranges = Ranges("percentile", 1)
    ranges.add("x", np.arange(-5, 100, dtype=np.float32))
    assert ranges.result() == {"x": (-5.0, 99.0)}


def test_many_equal_values_count_each() -> None:
    """Of 400004 values 4 are left out at the top: 8, 8, 7 and 7 are, and the end is one of the 400000 that are 1."""
    ranges = Ranges("percentile", 2)
    for _ in range(2):
        ranges.add("x", np.concatenate([np.full(200_000, 1, np.float32), np.array([7, 8], np.float32)]))
    assert ranges.result() == {"x": (1.0, 1.0)}


def test_a_tensor_that_is_always_zero_gets_a_range() -> None:
    """Nothing but zeros gives the range 0 to 1, not one of no width."""
    ranges = Ranges("minmax", 1)
    ranges.add("x", np.zeros(4, np.float32))
    assert ranges.result() == {"x": (0.0, 1.0)}
