"""The median of a growing series, with an interval that stays valid however often it is looked at."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

CONFIDENCE = 0.95
MAX_ROUNDS = 1000
ASSUMPTION = (
    "a round is as likely above the median as below it, whatever the rounds before it were;"
    " nothing is assumed of how far off it is."
    " Ratios of models side by side are like that; latencies alone, which budgets bound, on a steady device only"
)
# Half of what may go wrong at all is spent in the first 20 rounds. A smaller number would narrow the first intervals
# and widen the later ones, by about one order statistic either way.
_HALF_SPENT_ROUNDS = 20


@dataclass(frozen=True)
class MedianInterval:
    """A median and its 95% interval; ``low`` and ``high`` are infinite while there are too few values."""

    median: float
    low: float
    high: float

    def side_of(self, threshold: float) -> Literal["above", "below"] | None:
        """Return on which side of a threshold the whole interval lies; None where it reaches over it."""
        if self.low > threshold:
            return "above"
        return "below" if self.high <= threshold else None

    @property
    def reach(self) -> float:
        """The distance from the median to the lower end: a median higher by more would be surely above the present."""
        return self.median - self.low


def sequential_median_interval(values: Sequence[float]) -> MedianInterval:
    """Return the median with an interval that holds the true one at every number of values at once, with 95%.

    It may therefore be computed after each value, and the series ended when it is narrow enough. For every candidate
    m, the number of values above m is a simple random walk if m is the true median. Candidates whose walk has left
    its bounds are excluded; the bounds are exact, by recursion over the walk (P. Armitage, C. McPherson and
    B. Rowe, Repeated significance tests on accumulating data, JRSS A 132 (1969) 235), and spend the 5% over the
    values without a last one being known (K. Lan and D. DeMets, Discrete sequential boundaries for clinical trials,
    Biometrika 70 (1983) 659). The interval of what is left is that of C. Jennison and B. Turnbull, Interim analyses:
    the repeated confidence interval approach, JRSS B 51 (1989) 305. Only the signs count, so tails do not touch it.

    Args:
        values: in the order taken, at most ``MAX_ROUNDS``.
    """
    ordered, number = sorted(values), len(values)
    rank = _interval_ranks()[number - 1]
    if not rank:
        return MedianInterval(statistics.median(ordered), -math.inf, math.inf)
    return MedianInterval(statistics.median(ordered), ordered[rank - 1], ordered[-rank])


@functools.cache
def fewest_values() -> int:
    """Return the fewest values that have an interval."""
    return next(number for number, rank in enumerate(_interval_ranks(), 1) if rank)


@functools.cache
def _interval_ranks() -> tuple[int, ...]:
    """Return k for each number of values n from 1: the interval ends at the k-th smallest and largest; 0 for none.

    ``inside`` holds the probability of each number of values above the true median, without the walks that have
    left the bounds before.
    """
    ranks, spent = [], 0.0
    inside = np.ones(1)
    for number in range(1, MAX_ROUNDS + 1):
        inside = (np.append(inside, 0) + np.append(0, inside)) / 2
        allowed = (1 - CONFIDENCE) * number / (number + _HALF_SPENT_ROUNDS) - spent
        tails = np.cumsum(inside[: number // 2] + inside[::-1][: number // 2])
        rank = int(np.searchsorted(tails, allowed, side="right"))
        if rank:
            spent += float(tails[rank - 1])
            inside[:rank] = inside[-rank:] = 0
        ranks.append(rank)
    return tuple(ranks)
