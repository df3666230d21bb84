"""NSGA-II (Deb et al. 2002, pymoo's implementation) over genes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgenas.costs import CostModel, Genes
from edgenas.errors import UsageError
from edgenas.search.pareto import Front, nondominated_mask
from edgenas.space import SearchSpace

POPULATION = 100
GENERATIONS = 100


def search_front(
    space: SearchSpace,
    accuracy: CostModel,
    latency_ms: CostModel,
    peak_bytes: CostModel,
    *,
    target: str,
    seed: int,
    inputs_digest: str = "",
    source: str = "",
    on_generation: Callable[[int, int], None] = lambda done, total: None,
) -> Front:
    """The Pareto front of high accuracy, low latency and low peak memory.

    Everything random follows from ``seed``. The front is the nondominated set
    of all architectures that the search looked at, not of its last population
    alone. ``on_generation`` is called with how many are done, of how many.
    Raises UsageError for a negative seed.
    """
    if seed < 0:
        raise UsageError(f"seed must be 0 or more, but got {seed}")
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.operators.crossover.ux import UniformCrossover

    from edgenas.search.problem import ArchitectureProblem, Canonical, Redraw

    first = space.sample(POPULATION, np.random.default_rng(seed))
    first[0], first[1] = space.smallest.genes, space.largest.genes
    algorithm = NSGA2(
        pop_size=POPULATION,
        sampling=first,
        crossover=UniformCrossover(),
        mutation=Redraw(space),
        repair=Canonical(space),
        eliminate_duplicates=True,
    )
    problem = ArchitectureProblem(space, [lambda genes: -accuracy(genes), latency_ms, peak_bytes])
    algorithm.setup(problem, termination=("n_gen", GENERATIONS), seed=seed)
    seen: list[tuple[Genes, Any]] = []
    while algorithm.has_next():
        offspring = algorithm.ask()
        if offspring is None:  # a small space: nothing is left that the population does not hold
            break
        algorithm.evaluator.eval(problem, offspring)
        algorithm.tell(infills=offspring)
        seen.append((offspring.get("X").astype(np.int64), offspring.get("F")))
        on_generation(algorithm.n_gen - 1, GENERATIONS)
    return _front(
        space, target, inputs_digest, source, np.concatenate([x for x, _ in seen]), np.concatenate([f for _, f in seen])
    )


def _front(space: SearchSpace, target: str, inputs_digest: str, source: str, genes: Genes, costs: Any) -> Front:
    genes, first = np.unique(genes, axis=0, return_index=True)
    costs = costs[first]
    kept = nondominated_mask(costs)
    order = np.lexsort((costs[kept][:, 0], costs[kept][:, 1]))
    accuracy, latency_ms, peak_bytes = costs[kept][order].T
    best = genes[kept][order]
    return Front(space, target, best, -accuracy, latency_ms, peak_bytes, len(genes), inputs_digest, source)
