"""Selection of the subnets that a latency table measures: spread out first, then the least certain, some at random."""

from __future__ import annotations

import numpy as np

from edgenas.costs import Genes
from edgenas.profilers.latency.fit import part_count_matrix
from edgenas.profilers.latency.gaussian_process import PartProcess
from edgenas.space import SearchSpace

# More candidates than this add seconds, not knowledge.
_CANDIDATES = 600
# A space counts as used up after this many draws of this many architectures.
_DRAWS, _DRAW_SIZE = 100, 64


def sample_spread_out(space: SearchSpace, count: int, rng: np.random.Generator) -> Genes:
    """Return distinct architectures (count, G): half uniform, half mixed with the smallest or the largest one.

    Nearly all uniform architectures are of medium size, where no search ends. Each mixed one takes a random share
    of its genes, except the resolution, from one of the two extremes.
    """
    genes = space.sample_distinct(min(4 * count, space.size), rng)
    extremes = space.encode([space.smallest, space.largest])[rng.integers(0, 2, len(genes))]
    replaced = rng.random(genes.shape) < rng.random((len(genes), 1))
    replaced[:, 0] = False
    is_mixed = np.arange(len(genes)) % 2 == 1
    mixed = space.canonical(np.where(replaced & is_mixed[:, None], extremes, genes))
    first_rows = np.sort(np.unique(mixed, axis=0, return_index=True)[1])
    return mixed[first_rows][:count]


def select_subnets(
    space: SearchSpace, process: PartProcess | None, measured: Genes, count: int, rng: np.random.Generator
) -> Genes:
    """Return the subnets to measure next.

    Args:
        space: The search space.
        process: The fit so far, which selects the least certain subnets, one after the other. None selects
            spread-out ones.
        measured: The genes (N, G) that are not selected again.
        count: The number of subnets.
        rng: The source of randomness.

    Returns:
        Genes (count, G), or fewer if the space has no more.
    """
    size = (count if process is None else _CANDIDATES) + len(measured)
    drawn = sample_spread_out(space, size, rng)
    known = {row.tobytes() for row in measured}
    fresh = drawn[[row.tobytes() not in known for row in drawn]]
    if process is None:
        fresh = fresh[:count]
        rest = sample_unmeasured(space, np.vstack([measured, fresh]), count - len(fresh), rng)
        return np.asarray(np.vstack([fresh, rest]), dtype=np.int64)
    candidates = fresh[:_CANDIDATES]
    selected: Genes = candidates[process.select_most_uncertain(part_count_matrix(space, candidates), count)]
    return selected


def sample_unmeasured(space: SearchSpace, measured: Genes, count: int, rng: np.random.Generator) -> Genes:
    """Return distinct uniformly random architectures (count, G) without ``measured`` (N, G); fewer if none is left."""
    known = {row.tobytes() for row in measured}
    rows: list[Genes] = []
    for _ in range(_DRAWS):
        for row in space.sample(_DRAW_SIZE, rng):
            if len(rows) < count and row.tobytes() not in known:
                known.add(row.tobytes())
                rows.append(row)
        if len(rows) == count or len(known) >= space.size:
            break
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(space.genes))
