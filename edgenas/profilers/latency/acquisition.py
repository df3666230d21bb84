"""Which subnets to measure for a latency table: at first spread out, then those that it knows least about.

Beside them uniformly random ones, which judge the table and are never fitted.
"""

from __future__ import annotations

import numpy as np

from edgenas.costs import Genes
from edgenas.profilers.latency.fit import count_parts
from edgenas.profilers.latency.gaussian_process import PartProcess
from edgenas.space import SearchSpace

# More candidates than this add seconds, not knowledge.
_CANDIDATES = 600
# So often is drawn for what is left of a space before it counts as used up.
_DRAWS, _AT_ONCE = 100, 64


def spread_out(space: SearchSpace, count: int, rng: np.random.Generator) -> Genes:
    """Distinct architectures (count, G): half uniform, half leaning towards the smallest or the largest.

    Of uniform ones nearly all are of middling size, where no search ends. Each
    of the others takes a share of its choices, drawn for itself, from one end;
    never the resolution.
    """
    genes = space.sample_distinct(min(4 * count, space.size), rng)
    ends = space.encode([space.smallest, space.largest])[rng.integers(0, 2, len(genes))]
    taken = rng.random(genes.shape) < rng.random((len(genes), 1))
    taken[:, 0] = False
    leaning = np.arange(len(genes)) % 2 == 1
    mixed = space.canonical(np.where(taken & leaning[:, None], ends, genes))
    first = np.sort(np.unique(mixed, axis=0, return_index=True)[1])
    return mixed[first][:count]


def select_subnets(
    space: SearchSpace, known: PartProcess | None, measured: Genes, count: int, rng: np.random.Generator
) -> Genes:
    """What to measure next (count, G): the least certain, one after the other; spread out while nothing is known.

    ``measured`` (N, G) are not chosen again. Fewer than ``count`` where the
    space has no more.
    """
    drawn = spread_out(space, count + len(measured) if known is None else _CANDIDATES + len(measured), rng)
    seen = {row.tobytes() for row in measured}
    fresh = drawn[[row.tobytes() not in seen for row in drawn]]
    if known is None:
        fresh = fresh[:count]
        rest = random_subnets(space, np.vstack([measured, fresh]), count - len(fresh), rng)
        both: Genes = np.vstack([fresh, rest])
        return both
    candidates = fresh[:_CANDIDATES]
    best: Genes = candidates[known.select_most_uncertain(count_parts(space, candidates), count)]
    return best


def random_subnets(space: SearchSpace, measured: Genes, count: int, rng: np.random.Generator) -> Genes:
    """Uniformly random architectures (count, G), distinct, none of ``measured`` (N, G); fewer where none is left."""
    seen = {row.tobytes() for row in measured}
    rows: list[Genes] = []
    for _ in range(_DRAWS):
        for row in space.sample(_AT_ONCE, rng):
            if len(rows) < count and row.tobytes() not in seen:
                seen.add(row.tobytes())
                rows.append(row)
        if len(rows) == count or len(seen) >= space.size:
            break
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(space.genes))
