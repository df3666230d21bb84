"""Predictor-guided iteration, for costs that are measured: LINAS of DyNAS-T (D. Cummings et al., arXiv 2202.12954).

LINAS: lightweight iterative NAS. Predictors are fitted to what was evaluated, NSGA-II searches on their predictions,
and the most promising architectures of its front are evaluated next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgenas.costs import CostModel, Genes
from edgenas.search.evaluator import Evaluator
from edgenas.search.pareto import best_rows
from edgenas.search.problem import Problem
from edgenas.search.strategies.contract import Evaluate
from edgenas.search.strategies.nsga2 import search as search_nsga2
from edgenas.search.strategies.surrogate import Surrogate

_FIRST, _MOST_FIRST, _ROUNDS = 0.15, 100, 20  # share of the budget that is random; rounds that have the rest
_PREDICTED = 3000  # evaluations of predictors in a round
_MOST_FITTED = 500  # architectures, those of the front and the last ones: a fit takes seconds beyond


def search(
    problem: Problem, evaluate: Evaluate, *, budget: int, seed: int, progress: Callable[[int, int], None]
) -> None:
    """Evaluate random architectures, then in rounds those that are predicted to widen the front.

    Objectives and the violation of limits are predicted by Gaussian processes on one-hot genes.
    """
    rng = np.random.default_rng(seed)
    first = problem.space.sample(max(1, min(round(_FIRST * budget), _MOST_FIRST)), rng)
    evaluate(first)
    spent = len(first)
    progress(spent, budget)
    for number in range(_ROUNDS):
        count = (budget - spent) // (_ROUNDS - number)
        if not count:
            continue
        genes = _propose(problem, evaluate, count, seed + number)
        if not len(genes):  # all architectures of a small space are evaluated
            return
        evaluate(genes)
        spent += len(genes)
        progress(spent, budget)


def _propose(problem: Problem, evaluate: Evaluate, count: int, seed: int) -> Genes:
    """Return up to ``count`` new architectures of the predicted front, spread evenly over it."""
    by_predictors = _predicted_problem(problem, evaluate)
    predicted = Evaluator(by_predictors, 2 * (_PREDICTED + len(evaluate.genes)), "predictors")
    predicted(evaluate.genes[best_rows(evaluate.costs)])
    search_nsga2(by_predictors, predicted, budget=_PREDICTED, seed=seed, progress=lambda done, total: None)
    new = evaluate.is_new(predicted.genes)
    genes, costs = predicted.genes[new], predicted.costs[np.flatnonzero(new)]
    chosen: list[Genes] = []
    while len(genes) and sum(map(len, chosen)) < count:
        rows = best_rows(costs)  # of the front first, then of the one behind it
        rows = rows[np.argsort(costs.objectives[rows, 0], kind="stable")]
        wanted = count - sum(map(len, chosen))
        if len(rows) > wanted:
            rows = rows[np.unique(np.linspace(0, len(rows) - 1, wanted).round().astype(int))]
        chosen.append(genes[rows])
        left = np.delete(np.arange(len(genes)), rows)
        genes, costs = genes[left], costs[left]
    return np.concatenate(chosen) if chosen else genes


def _predicted_problem(problem: Problem, evaluate: Evaluate) -> Problem:
    """Return the problem with predictors in the place of the costs that are measured; without any, of all costs."""
    rows = np.arange(len(evaluate.genes))
    if len(rows) > _MOST_FITTED:  # the front and the latest ones
        rows = np.unique(np.concatenate([best_rows(evaluate.costs), rows[-_MOST_FITTED:]]))[-_MOST_FITTED:]
    costs: dict[str, CostModel] = {}
    for column, (name, model) in enumerate(problem.costs.items()):
        if name in (problem.real or problem.costs):
            costs[name] = Surrogate(problem.space.radices, evaluate.genes[rows], evaluate.values[rows, column])
        elif name in (*problem.objectives, *problem.limits):
            costs[name] = model
    return replace(problem, costs=costs, real=(), known=None)
