"""NSGA-II (Deb et al., IEEE Transactions on Evolutionary Computation 6 (2002) 182) over genes, by pymoo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair
from pymoo.operators.crossover.ux import UniformCrossover

from edgenas.costs import Genes, Vector
from edgenas.space import SearchSpace

POPULATION = 100


def search(
    space: SearchSpace,
    evaluate: Callable[[Genes], Vector],
    *,
    budget: int,
    seed: int,
    progress: Callable[[int, int], None],
) -> None:
    """Evolve a population of 100 for as many generations as the budget has hundreds."""
    initial = space.sample(POPULATION, np.random.default_rng(seed))
    initial[0], initial[1] = space.smallest.genes, space.largest.genes
    algorithm = NSGA2(
        pop_size=POPULATION,
        sampling=initial,
        crossover=UniformCrossover(),
        mutation=_ResampleGenes(space),
        repair=_ClearDeadGenes(space),
        eliminate_duplicates=True,
    )
    problem, generations = _ArchitectureProblem(space, evaluate), budget // POPULATION
    algorithm.setup(problem, termination=("n_gen", generations), seed=seed)
    while algorithm.has_next():
        offspring = algorithm.ask()
        if offspring is None:  # the population holds all architectures of a small space
            break
        algorithm.evaluator.eval(problem, offspring)
        algorithm.tell(infills=offspring)
        progress(algorithm.n_gen - 1, generations)


class _ArchitectureProblem(Problem):  # type: ignore[misc] # pymoo has no types
    """The problem of minimising the three costs over the genes of a space."""

    def __init__(self, space: SearchSpace, evaluate: Callable[[Genes], Vector]) -> None:
        super().__init__(n_var=len(space.genes), n_obj=3, xl=0, xu=space.radices - 1, vtype=int)
        self._costs = evaluate

    def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        out["F"] = self._costs(x)


class _ClearDeadGenes(Repair):  # type: ignore[misc] # pymoo has no types
    """The repair that makes genes canonical, so that pymoo sees equal networks as equal rows."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self._space = space

    def _do(self, problem: Problem, X: Any, **kwargs: Any) -> Any:  # noqa: N803 - pymoo's name
        return self._space.canonical(X.astype(np.int64))


class _ResampleGenes(Mutation):  # type: ignore[misc] # pymoo has no types
    """The mutation that replaces each gene with probability 1/G by a uniformly random one.

    Genes are categories: a small step up or down, as for numbers, has no meaning.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self._radices = space.radices

    def _do(self, problem: Problem, X: Any, *args: Any, random_state: Any, **kwargs: Any) -> Any:  # noqa: N803
        redrawn = random_state.integers(0, self._radices, size=X.shape)
        return np.where(random_state.random(X.shape) < 1 / X.shape[1], redrawn, X)
