"""From budgets to candidates, best first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgenas.costs import Budget
from edgenas.errors import BudgetError
from edgenas.search.pareto import Front
from edgenas.units import format_bytes, format_ms


def rank_candidates(front: Front, budget: Budget) -> npt.NDArray[np.int64]:
    """Indices into the front of what is predicted to fit the budget: most accurate first, the faster of equals first.

    Raises BudgetError when nothing fits, saying what the fastest and the
    leanest architectures need.
    """
    fits = (front.latency_ms <= budget.latency_ms) & (front.peak_bytes <= budget.memory_bytes)
    if not fits.any():
        raise BudgetError(_nothing_fits(front, budget))
    indices = np.flatnonzero(fits)
    order = np.lexsort((front.latency_ms[indices], -front.accuracy[indices]))
    return indices[order]


def _nothing_fits(front: Front, budget: Budget) -> str:
    fastest, leanest = int(np.argmin(front.latency_ms)), int(np.argmin(front.peak_bytes))
    architectures = front.architectures()
    return (
        f"no subnet meets the budget ({budget}) on {front.target}: the fastest is {architectures[fastest]} with"
        f" {format_ms(front.latency_ms[fastest])}, the leanest {architectures[leanest]} with"
        f" {format_bytes(front.peak_bytes[leanest])}; raise the budget (all predicted)"
    )
