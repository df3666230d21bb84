"""The subnets of a front that meet a budget, best first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgenas.costs import Budget
from edgenas.errors import BudgetError
from edgenas.search.pareto import Front
from edgenas.units import format_bytes, format_ms


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
