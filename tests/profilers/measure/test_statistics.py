"""The median's interval, by hand and on series whose median is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.errors import MeasurementError
from edgenas.on_device.sampling import BLOCKS, STUDENT_T
from edgenas.profilers.measure import statistics
from edgenas.profilers.measure.statistics import (
    count_processes_needed,
    find_modes,
    median_of_medians_with_interval,
    median_ratio_with_interval,
    median_with_interval,
    percentile,
    range_of_block_medians,
)


def test_interval_by_hand() -> None:
    """Four runs are four blocks: M = 2.5, sum of squares 5, half-width t(3) * sqrt(5 / (3 * 4))."""
    half = 3.182446 * math.sqrt(5 / 12)
    assert median_with_interval([1.0, 2.0, 3.0, 4.0]) == pytest.approx((2.5, 2.5 - half, 2.5 + half))


def test_blocks_follow_time() -> None:
    """Twenty runs in ten blocks of two: block medians 0.5, 2.5, ... 18.5 around 9.5 give 330 as the sum of squares."""
    half = 2.262157 * math.sqrt(330 / 90)
    assert median_with_interval([float(run) for run in range(20)])[2] == pytest.approx(9.5 + half)


def test_equal_runs_are_certain() -> None:
    """Runs that do not differ have an interval without width."""
    assert median_with_interval([3.0] * 12) == (3.0, 3.0, 3.0)


def test_one_run_has_no_interval() -> None:
    """A single run is refused with the remedy."""
    with pytest.raises(MeasurementError, match="min_runs"):
        median_with_interval([1.0])


def test_percentile_by_hand() -> None:
    """The 90th percentile of 0 to 10 is 9."""
    assert percentile([float(value) for value in range(11)], 90) == 9.0


def test_student_quantiles_are_right() -> None:
    """The table of quantiles is that of Student's t."""
    from scipy.stats import t

    expected = t.ppf(0.975, range(1, BLOCKS))
    assert list(STUDENT_T) == pytest.approx(expected, abs=1e-6)


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
        _, low, high = median_with_interval(100 + series[100:])
        covered += low <= 100 <= high
    assert covered >= 0.9 * 400


@given(st.lists(st.floats(0.001, 1000), min_size=2, max_size=60), st.floats(0.01, 100))
def test_interval_scales_and_holds_the_median(samples: list[float], scale: float) -> None:
    """The interval lies around the median, and a change of unit changes all three alike."""
    median, low, high = median_with_interval(samples)
    assert low <= median <= high
    scaled = median_with_interval([value * scale for value in samples])
    assert scaled == pytest.approx((median * scale, low * scale, high * scale), rel=1e-6, abs=1e-9)


def simulated_process(generator: np.random.Generator, between: float, correlation: float = 0.8) -> float:
    """The median of 20 correlated runs of a process that settled at its own speed; the true median is 1."""
    noise = generator.standard_normal(20)
    runs = [noise[0] / math.sqrt(1 - correlation**2)]
    for step in noise[1:]:
        runs.append(correlation * runs[-1] + step)
    return float(1 + between * generator.standard_normal() + 0.01 * np.median(runs))


@pytest.mark.parametrize(("number", "variance"), [(2, 0.5), (3, 0.448671), (4, 0.298191), (5, 0.286833)])
def test_the_variance_of_a_median_of_few(number: int, variance: float) -> None:
    """The tabled variances are those of the medians of 200,000 samples from a normal distribution."""
    medians = np.median(np.random.default_rng(0).standard_normal((200_000, number)), axis=1)
    assert statistics._MEDIAN_VARIANCE[number] == variance
    assert medians.var() == pytest.approx(variance, rel=0.02)


def test_the_interval_of_two_processes_by_hand() -> None:
    """Of 1 and 3 the deviation is the root of 2, the variance of their median half of it: t(1) * 1."""
    assert median_of_medians_with_interval([3.0, 1.0]) == pytest.approx((2.0, 2 - 12.706205, 2 + 12.706205))


@pytest.mark.parametrize(("count", "ends"), [(6, (1.0, 6.0)), (8, (1.0, 8.0)), (9, (2.0, 8.0)), (12, (3.0, 10.0))])
def test_from_six_on_the_ends_are_order_statistics(count: int, ends: tuple[float, float]) -> None:
    """As in tables of the sign test: of 6 and 8 values the extremes, of 9 the second, of 12 the third from each end."""
    middle, low, high = median_of_medians_with_interval([float(value) for value in range(count, 0, -1)])
    assert middle == (count + 1) / 2
    assert (low, high) == ends


def test_one_process_has_no_interval() -> None:
    """A single process is refused with the remedy."""
    with pytest.raises(MeasurementError, match="raise processes"):
        median_of_medians_with_interval([1.0])


@pytest.mark.parametrize("number", [2, 3, 5, 6, 12])
def test_the_interval_covers_the_median_over_processes(number: int) -> None:
    """With correlated runs and processes that differ by 2%, at least 93% of 600 intervals hold the true median."""
    generator = np.random.default_rng(number)
    covered = 0
    for _ in range(600):
        _, low, high = median_of_medians_with_interval([simulated_process(generator, 0.02) for _ in range(number)])
        covered += low <= 1 <= high
    assert covered >= 0.93 * 600


@pytest.mark.parametrize("between", [0.005, 0.02, 0.04])
def test_stopping_when_it_is_narrow_keeps_the_coverage(between: float) -> None:
    """Adding processes until the interval is narrow enough, 24 at most, still covers in at least 93% of 500 trials."""
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(500):
        medians = [simulated_process(generator, between) for _ in range(6)]
        while (needed := min(24, count_processes_needed(medians, 0.02))) > len(medians):
            medians += [simulated_process(generator, between) for _ in range(needed - len(medians))]
        _, low, high = median_of_medians_with_interval(medians)
        covered += low <= 1 <= high
    assert covered >= 0.93 * 500


def test_enough_processes_need_no_more() -> None:
    """Half of 0.98 to 1.02 is 2%: enough for 2%; a little less needs three more, half of it at most twice as many."""
    medians = [0.98, 0.99, 1.0, 1.0, 1.01, 1.02]
    assert count_processes_needed(medians, 0.0201) == 6
    assert count_processes_needed(medians, 0.0199) == 9
    assert count_processes_needed(medians, 0.01) == 12


def test_pairs_cancel_what_their_rounds_share() -> None:
    """A model 5% slower in every round, while the device drifts by 60%, is found 5% slower without doubt."""
    drift = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6]
    assert median_ratio_with_interval([(1.05 * level, level) for level in drift]) == pytest.approx((1.05, 1.05, 1.05))


@given(st.lists(st.floats(0.001, 1000), min_size=2, max_size=40), st.floats(0.01, 100))
def test_the_interval_of_medians_scales_and_holds_the_median(medians: list[float], scale: float) -> None:
    """The order of processes does not matter, and a change of unit changes all three alike."""
    middle, low, high = median_of_medians_with_interval(medians)
    assert low <= middle <= high
    assert median_of_medians_with_interval(medians[::-1]) == (middle, low, high)
    scaled = median_of_medians_with_interval([value * scale for value in medians])
    assert scaled == pytest.approx((middle * scale, low * scale, high * scale), rel=1e-6, abs=1e-9)


def test_the_range_by_hand() -> None:
    """Twenty runs give block medians 0.5, 2.5, ... 18.5: places 0.225 and 8.775 of the ten are 0.95 and 18.05."""
    assert range_of_block_medians([[float(run) for run in range(20)]]) == pytest.approx((0.95, 18.05))


def test_the_range_is_over_the_blocks_of_all_processes() -> None:
    """Single runs 1, 2, 2 and 3 of two processes: places 0.075 and 2.925 of the four are 1.075 and 2.925."""
    assert range_of_block_medians([[3.0, 1.0], [2.0, 2.0]]) == pytest.approx((1.075, 2.925))


@given(st.lists(st.lists(st.floats(0.001, 1000), min_size=2, max_size=60), min_size=6, max_size=12))
def test_the_range_holds_the_median_of_the_processes(processes: list[list[float]]) -> None:
    """From six processes on, their median is never outside of the range, however they differ."""
    low, high = range_of_block_medians(processes)
    median = median_of_medians_with_interval([float(np.median(runs)) for runs in processes])[0]
    assert low <= median * (1 + 1e-9)
    assert median <= high * (1 + 1e-9)


def test_two_speeds_are_two_modes() -> None:
    """Three medians around 1.0 and three around 1.2, 19% above the highest of those."""
    assert find_modes([1.2, 1.0, 1.01, 1.21, 1.0, 1.2]) == [(1.0, 3), (1.2, 3)]


@pytest.mark.parametrize(
    "medians",
    [
        pytest.param([1.0, 1.06, 1.12, 1.18, 1.24, 1.3], id="an even spread"),
        pytest.param([1.0, 1.0, 1.0, 1.0, 1.0, 1.5], id="one slow process"),
        pytest.param([1.0, 1.5, 1.5, 1.5, 1.5, 1.5], id="one fast process"),
        pytest.param([1.0, 1.0, 1.0, 1.04, 1.04, 1.04], id="a gap of 4%"),
        pytest.param([1.0, 1.0, 1.06, 1.16, 1.16, 1.16], id="a gap of less than twice what a group spans"),
        pytest.param([1.0, 1.0, 1.2], id="three processes"),
        pytest.param([1.0], id="one process"),
    ],
)
def test_anything_else_is_one_speed(medians: list[float]) -> None:
    """What is spread evenly, too near or a single process's is no mode."""
    assert find_modes(medians) == []
