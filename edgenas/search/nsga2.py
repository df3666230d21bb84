"""The search itself: NSGA-II (Deb et al. 2002, pymoo's implementation) over genes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgenas.costs import CostModel, Genes, Vector
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
    """Search the Pareto front of high accuracy, low latency and low peak memory.

    Args:
        space: The space to search.
        accuracy: Predicts accuracy, 0 to 1.
        latency_ms: Predicts the median latency of one inference.
        peak_bytes: Predicts the peak memory of one inference.
        target: The name of the target that the costs belong to.
        seed: Decides everything that is random.
        inputs_digest: The digest of the inputs of this search, kept in the front.
        source: What the costs come from where they are not measurements of this run, kept in the front.
        on_generation: Called after each generation with its number and the number of all.

    Returns:
        The nondominated set of all architectures that were evaluated, not of the last population alone.

    Raises:
        UsageError: The seed is negative.
    """
    if seed < 0:
        raise UsageError(f"seed must be 0 or more, but got {seed}")
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.operators.crossover.ux import UniformCrossover

    from edgenas.search.problem import ArchitectureProblem, ClearDeadGenes, ResampleGenes

    initial = space.sample(POPULATION, np.random.default_rng(seed))
    initial[0], initial[1] = space.smallest.genes, space.largest.genes
    algorithm = NSGA2(
        pop_size=POPULATION,
        sampling=initial,
        crossover=UniformCrossover(),
        mutation=ResampleGenes(space),
        repair=ClearDeadGenes(space),
        eliminate_duplicates=True,
    )
    problem = ArchitectureProblem(space, [lambda genes: -accuracy(genes), latency_ms, peak_bytes])
    algorithm.setup(problem, termination=("n_gen", GENERATIONS), seed=seed)
    genes, costs = _run_generations(algorithm, problem, on_generation)
    best = np.flatnonzero(nondominated_mask(costs))
    best = best[np.lexsort((costs[best, 0], costs[best, 1]))]
    negative_accuracy, latencies, peaks = costs[best].T
    return Front(space, target, genes[best], -negative_accuracy, latencies, peaks, len(genes), inputs_digest, source)


def _run_generations(algorithm: Any, problem: Any, on_generation: Callable[[int, int], None]) -> tuple[Genes, Vector]:
    """Run the algorithm to its end; return all distinct genes that it evaluated, (N, G), and their costs, (N, 3)."""
    genes, costs = [], []
    while algorithm.has_next():
        offspring = algorithm.ask()
        if offspring is None:  # the population holds all architectures of a small space
            break
        algorithm.evaluator.eval(problem, offspring)
        algorithm.tell(infills=offspring)
        genes.append(offspring.get("X").astype(np.int64))
        costs.append(offspring.get("F"))
        on_generation(algorithm.n_gen - 1, GENERATIONS)
    distinct, first_rows = np.unique(np.concatenate(genes), axis=0, return_index=True)
    return distinct, np.concatenate(costs)[first_rows]
