"""The subnets of a front that meet a budget, in the order to try them."""

from __future__ import annotations

import math
from statistics import median

import numpy as np
import numpy.typing as npt

from edgenas.costs import Budget, Vector
from edgenas.errors import BudgetError
from edgenas.search.pareto import Front
from edgenas.units import format_bytes, format_ms

_FITS = math.log(0.5) - 1e-9  # of a prediction at its limit
_LIKELY = math.log(0.4)  # of two predictions near their limits
_MOST_UNLIKELY = 3


class Candidates:
    """The subnets of a front that are predicted to meet a budget, in the order in which they are worth a try.

    First come those whose predictions keep both limits, the most accurate before the others; one that keeps both by so
    little that its chance is below 40% waits. Predictions for one device are off by nearly the same factor, so that
    each candidate that was measured corrects those of the others, and makes them surer. Where only unlikely ones are
    left, the likeliest come first, and three of them at most: when these fail, the others would, too.

    Args:
        front: The front.
        budget: The limits.
        latency_errors: The relative standard deviation (N,) of each predicted latency.
        memory_error: That of each predicted peak memory.

    Raises:
        BudgetError: No subnet is predicted to meet the budget.
    """

    def __init__(self, front: Front, budget: Budget, latency_errors: Vector, memory_error: float) -> None:
        self._left: list[int] = rank_candidates(front, budget).tolist()
        memory_errors = np.full(len(front), memory_error)
        self._quantities = (
            _Quantity(budget.latency_ms, front.latency_ms, latency_errors),
            _Quantity(budget.memory_bytes, front.peak_bytes, memory_errors),
        )
        self._unlikely = 0

    def __len__(self) -> int:
        return len(self._left)

    def take(self) -> int | None:
        """Return the index of the next candidate; None when no other is worth a try."""
        if not self._left:
            return None
        rows = np.array(self._left)
        chances = np.array([each.log_chances(rows) for each in self._quantities])
        both = chances.sum(axis=0)
        likely = np.flatnonzero((chances >= _FITS).all(axis=0) & (both >= _LIKELY))
        if len(likely):
            return self._left.pop(int(likely[0]))
        self._unlikely += 1
        # Chances that differ by less than a thousandth are equal: then the order of accuracy counts.
        return self._left.pop(int(np.argmax(both.round(3)))) if self._unlikely <= _MOST_UNLIKELY else None

    def learn(self, index: int, latency_ms: float, peak_bytes: float | None) -> None:
        """Correct the predictions by what a candidate was measured at: the latency that counts, and peak memory."""
        for quantity, measured in zip(self._quantities, (latency_ms, peak_bytes), strict=True):
            if measured and quantity.predicted[index] > 0:
                quantity.log_ratios.append(math.log(measured / quantity.predicted[index]))


class _Quantity:
    """A limit, and the predictions (N,) for it, which are corrected by the measured ones."""

    def __init__(self, limit: float, predicted: Vector, errors: Vector) -> None:
        self._limit, self.predicted, self._errors = limit, predicted, errors
        self.log_ratios: list[float] = []  # of measured to predicted

    def log_chances(self, rows: npt.NDArray[np.int64]) -> Vector:
        """Return the logarithms of the probabilities that these candidates keep the limit."""
        from scipy.special import log_ndtr

        if math.isinf(self._limit):
            return np.zeros(len(rows))
        shift = median(self.log_ratios) if self.log_ratios else 0.0
        margins = np.log(self._limit / np.maximum(self.predicted[rows], 1e-12)) - shift
        chances: Vector = log_ndtr(margins * (1 + len(self.log_ratios)) / np.maximum(self._errors[rows], 1e-6))
        return chances


def rank_candidates(front: Front, budget: Budget) -> npt.NDArray[np.int64]:
    """Return the indices of the subnets that are predicted to meet the budget, best first.

    The most accurate subnet comes first; of equally accurate ones the fastest.

    Raises:
        BudgetError: No subnet meets the budget. The message names the fastest subnet and the one with the least
            memory.
    """
    fits = (front.latency_ms <= budget.latency_ms) & (front.peak_bytes <= budget.memory_bytes)
    if not fits.any():
        fastest, smallest = int(np.argmin(front.latency_ms)), int(np.argmin(front.peak_bytes))
        architectures = front.architectures()
        raise BudgetError(
            f"no subnet meets the budget ({budget}) on {front.target}: the fastest is {architectures[fastest]} with"
            f" {format_ms(front.latency_ms[fastest])}, the one with the least memory is {architectures[smallest]} with"
            f" {format_bytes(front.peak_bytes[smallest])}; raise the budget (all predicted)"
        )
    indices = np.flatnonzero(fits)
    return indices[np.lexsort((front.latency_ms[indices], -front.accuracy[indices]))]
