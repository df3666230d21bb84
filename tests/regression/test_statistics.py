"""The interval that may be looked at after every round: its ranks, its false alarms, and what it finds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest

from edgenas.regression.statistics import MAX_ROUNDS, MedianInterval, _interval_ranks, sequential_median_interval

ROUNDS = 60  # in 30 s, of processes of a quarter of a second


def heavy_tailed(rng: np.random.Generator, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Logarithms of ratios as they were seen on a virtual machine: 3.5% wide at the middle, 16% in all."""
    calm, wild = 0.03 * rng.standard_normal(shape), 0.35 * rng.standard_normal(shape)
    return np.where(rng.random(shape) < 0.2, wild, calm)


def first_decision(values: npt.NDArray[np.float64], threshold: float) -> tuple[str | None, int]:
    """What a check that looks after every round decides, and the number of rounds that it took."""
    for number in range(1, len(values) + 1):
        side = sequential_median_interval(values[:number].tolist()).side_of(threshold)
        if side is not None:
            return side, number
    return None, len(values)


def test_fewer_than_eight_values_have_no_interval() -> None:
    """Seven equal signs have a chance of 1 in 64; 5% less what later looks may use is not that much."""
    assert sequential_median_interval([1.0] * 7) == MedianInterval(1.0, -math.inf, math.inf)
    assert sequential_median_interval([1.0] * 8) == MedianInterval(1.0, 1.0, 1.0)


def test_the_first_interval_ends_at_the_extremes() -> None:
    """Eight values: 2 of 2^8 walks leave the bounds, 0.8%, and 8/28 of 5% is 1.4%; two signs fewer would be 7%."""
    assert sequential_median_interval([5.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0]) == MedianInterval(4.5, 1.0, 8.0)


def test_a_hundred_values_lose_little_by_the_looks_before() -> None:
    """Looking once, the interval would end at the 40th value; after a hundred looks it ends at the 35th."""
    values = [float(value) for value in range(1, 101)]
    assert sequential_median_interval(values) == MedianInterval(50.5, 35.0, 66.0)


def test_no_more_than_five_percent_is_spent() -> None:
    """The chance of leaving the bounds at any of a thousand looks, by the recursion of Armitage written out anew."""
    chances, left = {0: 1.0}, 0.0
    for number, rank in enumerate(_interval_ranks(), 1):
        following: dict[int, float] = {}
        for above, chance in chances.items():
            for step in (0, 1):
                following[above + step] = following.get(above + step, 0.0) + chance / 2
        left += sum(chance for above, chance in following.items() if min(above, number - above) < rank)
        chances = {above: chance for above, chance in following.items() if min(above, number - above) >= rank}
        if number == 200:
            break
    assert 0.035 < left < 0.05


def test_ranks_never_fall_and_there_is_one_for_every_round() -> None:
    """More rounds exclude more."""
    ranks = _interval_ranks()
    assert len(ranks) == MAX_ROUNDS
    assert all(0 <= after - before <= 1 for before, after in itertools.pairwise(ranks))


def test_looking_after_every_round_inflates_no_alarms() -> None:
    """Of 1000 series of heavy-tailed noise, the interval leaves out the true median at any of 60 looks in under 5%."""
    noise = heavy_tailed(np.random.default_rng(0), (1000, ROUNDS))
    missed = 0
    for row in noise:
        intervals = [sequential_median_interval(row[:number].tolist()) for number in range(8, ROUNDS + 1)]
        missed += any(not each.low <= 0 <= each.high for each in intervals)
    assert missed <= 50


def test_a_change_at_the_limit_itself_is_seldom_called_one() -> None:
    """A slow-down of exactly the allowed 5% is regressed, or ok, in at most 2.5% of 4000 checks each."""
    noise = heavy_tailed(np.random.default_rng(1), (4000, ROUNDS)) + math.log(1.05)
    decisions = [first_decision(row, math.log(1.05))[0] for row in noise]
    assert decisions.count("above") <= 100
    assert decisions.count("below") <= 100


def test_unchanged_models_pass_within_few_rounds() -> None:
    """In the same noise, an unchanged model is never an alarm at +5%, and passes in half of the cases within 20."""
    decisions = [first_decision(row, math.log(1.05)) for row in heavy_tailed(np.random.default_rng(2), (200, ROUNDS))]
    assert [side for side, _ in decisions].count("above") == 0
    assert [side for side, _ in decisions].count("below") >= 196
    assert np.median([rounds for _, rounds in decisions]) <= 20


@pytest.mark.parametrize(("slower", "found"), [(1.10, 196), (1.08, 180)])
def test_a_true_change_is_found_and_never_passes(slower: float, found: int) -> None:
    """10% and 8% slower at +5%, 200 checks each: found in nearly all, the others undecided."""
    noise = heavy_tailed(np.random.default_rng(3), (200, ROUNDS)) + math.log(slower)
    decisions = [first_decision(row, math.log(1.05))[0] for row in noise]
    assert decisions.count("above") >= found
    assert decisions.count("below") == 0


def test_tails_do_not_touch_the_interval() -> None:
    """Two of sixteen rounds that are ten times as slow leave it where the others put it."""
    quiet = [0.001 * step for step in range(16)]
    loud = sequential_median_interval([*quiet[:14], 2.3, 2.4])
    assert loud == sequential_median_interval(quiet)
    assert (loud.median, loud.low, loud.high) == pytest.approx((0.0075, 0.002, 0.013))
