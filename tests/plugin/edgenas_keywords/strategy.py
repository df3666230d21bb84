"""Uniformly random search, as a strategy of another package."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgenas.search import Problem
from edgenas.search.strategies import Evaluate

BATCH = 100


def search_randomly(
    problem: Problem, evaluate: Evaluate, *, budget: int, seed: int, progress: Callable[[int, int], None]
) -> None:
    """Evaluate uniformly random architectures."""
    rng, batches = np.random.default_rng(seed), budget // BATCH
    for number in range(1, batches + 1):
        evaluate(problem.space.sample(BATCH, rng))
        progress(number, batches)
