"""Random search, the baseline that every strategy has to beat.

L. Li, A. Talwalkar, Random search and reproducibility for neural architecture search, arXiv 1902.07638.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgenas.search.problem import Problem
from edgenas.search.strategies.contract import Evaluate

_BATCH = 100
_PATIENCE = 20  # samples without an architecture that is new


def search(
    problem: Problem, evaluate: Evaluate, *, budget: int, seed: int, progress: Callable[[int, int], None]
) -> None:
    """Evaluate uniformly random architectures, none twice where the space has others."""
    rng, spent, idle = np.random.default_rng(seed), 0, 0
    while spent < budget and idle < _PATIENCE:
        genes = problem.space.sample(_BATCH, rng)
        genes = genes[evaluate.is_new(genes)][: budget - spent]
        idle = 0 if len(genes) else idle + 1
        if len(genes):
            evaluate(genes)
            spent += len(genes)
            progress(spent, budget)
