"""NSGA-II over genes, by pymoo, and a local search around the front that it found.

K. Deb, A. Pratap, S. Agarwal, T. Meyarivan, A fast and elitist multiobjective genetic algorithm: NSGA-II, IEEE
Transactions on Evolutionary Computation 6 (2002) 182.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem as PymooProblem
from pymoo.core.repair import Repair
from pymoo.operators.crossover.ux import UniformCrossover

from edgenas.costs import Genes
from edgenas.search.problem import GeneSpace, Problem
from edgenas.search.strategies.contract import Evaluate
from edgenas.search.strategies.front_refinement import refine_front
from edgenas.search.strategies.neighbours import mutate

POPULATION = 100
_LEAST_GENERATION, _GENERATIONS = 20, 20
_MATINGS = 10  # to fill a generation with architectures that are new
_EVOLVED = 1 / 30  # of the budget: from there on refining the front gains more with each evaluation
_GENES_REDRAWN = 1.0


def search(
    problem: Problem, evaluate: Evaluate, *, budget: int, seed: int, progress: Callable[[int, int], None]
) -> None:
    """Evolve a population with a thirtieth of the budget, and refine its front with the rest."""
    evolved = max(round(budget * _EVOLVED), min(budget, _LEAST_GENERATION))
    spent = evolve(problem, evaluate, budget=evolved, seed=seed, progress=lambda done, _: progress(done, budget))
    refine_front(
        problem.space, evaluate, budget - spent, np.random.default_rng(seed),
        lambda done: progress(spent + done, budget),
    )  # fmt: skip


def evolve(
    problem: Problem, evaluate: Evaluate, *, budget: int, seed: int, progress: Callable[[int, int], None]
) -> int:
    """Run NSGA-II from random architectures and all that were evaluated; return the number of its evaluations.

    With a small budget generations are small, because many generations gain more than large ones.
    """
    generation = min(int(np.clip(budget // _GENERATIONS, _LEAST_GENERATION, POPULATION)), budget)
    first = problem.space.sample(generation, np.random.default_rng(seed))
    spent = 0
    algorithm = NSGA2(
        pop_size=POPULATION,
        n_offsprings=generation,
        sampling=np.concatenate([evaluate.genes, first[evaluate.is_new(first)]]),
        crossover=UniformCrossover(),
        mutation=_RedrawGenes(problem.space),
        repair=_ClearDeadGenes(problem.space),
        eliminate_duplicates=_LeaveOutKnown(evaluate),
    )
    algorithm.mating.n_max_iterations = _MATINGS
    pymoo_problem = _GenesProblem(problem, evaluate)
    algorithm.setup(pymoo_problem, termination=("n_gen", np.inf), seed=seed)
    while True:
        offspring = algorithm.ask()
        if offspring is None:  # all architectures of a small space are known
            break
        cost = int(evaluate.is_new(offspring.get("X").astype(np.int64)).sum())
        if spent + cost > budget:
            break
        algorithm.evaluator.eval(pymoo_problem, offspring)
        algorithm.tell(infills=offspring)
        spent += cost
        progress(spent, budget)
    return spent


class _GenesProblem(PymooProblem):  # type: ignore[misc] # pymoo has no types
    """The problem over the genes of a space, as pymoo has it: objectives F, and the violation of limits G."""

    def __init__(self, problem: Problem, evaluate: Evaluate) -> None:
        radices = problem.space.radices
        counts = {"n_obj": len(problem.objectives), "n_ieq_constr": int(bool(problem.limits))}
        super().__init__(n_var=len(radices), xl=0, xu=radices - 1, vtype=int, **counts)
        self._evaluate_genes = evaluate

    def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        costs = self._evaluate_genes(x)
        out["F"] = costs.objectives
        if self.n_ieq_constr:
            out["G"] = costs.violation[:, None]


class _ClearDeadGenes(Repair):  # type: ignore[misc] # pymoo has no types
    """The repair that makes genes canonical, so that equal networks are equal rows."""

    def __init__(self, space: GeneSpace) -> None:
        super().__init__()
        self._space = space

    def _do(self, problem: PymooProblem, X: Any, **kwargs: Any) -> Any:  # noqa: N803 - pymoo's name
        return self._space.canonical(X.astype(np.int64))


class _LeaveOutKnown(DuplicateElimination):  # type: ignore[misc] # pymoo has no types
    """Leaves out offspring that this search has evaluated before, or that occurs twice."""

    def __init__(self, evaluate: Evaluate) -> None:
        super().__init__()
        self._is_new = evaluate.is_new

    def do(self, pop: Any, *others: Any, return_indices: bool = False, to_itself: bool = True) -> Any:
        if not others:  # the first population, which holds what was evaluated before
            return (pop, [], []) if return_indices else pop
        genes = pop.get("X").astype(np.int64)
        before = [other.get("X").astype(np.int64) for other in others if len(other)]
        taken: Genes = np.concatenate([*before, genes])
        kept = pop[self._is_new(taken)[len(taken) - len(genes) :]]
        return (kept, [], []) if return_indices else kept


class _RedrawGenes(Mutation):  # type: ignore[misc] # pymoo has no types
    """The mutation that draws each gene again with probability 1/G."""

    def __init__(self, space: GeneSpace) -> None:
        super().__init__()
        self._space = space

    def _do(self, problem: PymooProblem, X: Any, *args: Any, random_state: Any, **kwargs: Any) -> Any:  # noqa: N803
        return mutate(self._space, X.astype(np.int64), _GENES_REDRAWN, random_state)
