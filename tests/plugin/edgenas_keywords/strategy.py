"""Random search, the baseline that every strategy must beat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgenas.costs import Genes, Vector
from edgenas.space import SearchSpace

BATCH = 100


def search_randomly(
    space: SearchSpace,
    evaluate: Callable[[Genes], Vector],
    *,
    budget: int,
    seed: int,
    progress: Callable[[int, int], None],
) -> None:
    """Evaluate uniformly random architectures."""
    rng, batches = np.random.default_rng(seed), budget // BATCH
    for number in range(1, batches + 1):
        evaluate(space.sample(BATCH, rng))
        progress(number, batches)
