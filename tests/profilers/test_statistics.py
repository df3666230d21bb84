"""The median's interval, by hand and on series whose median is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.errors import MeasurementError
from edgenas.profilers import statistics
from edgenas.profilers.statistics import median_interval, percentile


def test_interval_by_hand() -> None:
    """Four runs are four blocks: M = 2.5, sum of squares 5, half-width t(3) * sqrt(5 / (3 * 4))."""
    half = 3.182446 * math.sqrt(5 / 12)
    assert median_interval([1.0, 2.0, 3.0, 4.0]) == pytest.approx((2.5, 2.5 - half, 2.5 + half))


def test_blocks_follow_time() -> None:
    """Twenty runs in ten blocks of two: block medians 0.5, 2.5, ... 18.5 around 9.5 give 330 as the sum of squares."""
    half = 2.262157 * math.sqrt(330 / 90)
    assert median_interval([float(run) for run in range(20)])[2] == pytest.approx(9.5 + half)


def test_equal_runs_are_certain() -> None:
    """Runs that do not differ have an interval without width."""
    assert median_interval([3.0] * 12) == (3.0, 3.0, 3.0)


def test_one_run_has_no_interval() -> None:
    """A single run is refused with the remedy."""
    with pytest.raises(MeasurementError, match="min_runs"):
        median_interval([1.0])


def test_percentile_by_hand() -> None:
    """The 90th percentile of 0 to 10 is 9."""
    assert percentile([float(value) for value in range(11)], 90) == 9.0


def test_student_quantiles_are_right() -> None:
    """The table of quantiles is that of Student's t."""
    from scipy.stats import t

    expected = t.ppf(0.975, range(1, statistics.BLOCKS))
    assert list(statistics._STUDENT_T) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_interval_covers_the_median_of_correlated_runs(correlation: float) -> None:
    """On AR(1) series of 300 runs the 95% interval holds the true median in at least 90% of 400 trials."""
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        noise = generator.standard_normal(400)
        series = np.zeros(400)
        for step in range(1, 400):
            series[step] = correlation * series[step - 1] + noise[step]
        _, low, high = median_interval(100 + series[100:])
        covered += low <= 100 <= high
    assert covered >= 0.9 * 400


@given(st.lists(st.floats(0.001, 1000), min_size=2, max_size=60), st.floats(0.01, 100))
def test_interval_scales_and_holds_the_median(samples: list[float], scale: float) -> None:
    """The interval lies around the median, and a change of unit changes all three alike."""
    median, low, high = median_interval(samples)
    assert low <= median <= high
    scaled = median_interval([value * scale for value in samples])
    assert scaled == pytest.approx((median * scale, low * scale, high * scale), rel=1e-6, abs=1e-9)
