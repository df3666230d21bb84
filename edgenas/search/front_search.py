"""The search for a front: what is common to all strategies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgenas.errors import BudgetError, EdgeNASError, UsageError
from edgenas.registry import DEFAULT_STRATEGY, STRATEGIES
from edgenas.search.evaluator import Evaluator
from edgenas.search.feasibility import check_limits
from edgenas.search.pareto import Front, Rows, best_rows, hypervolume, nondominated_mask
from edgenas.search.problem import Problem
from edgenas.search.quantities import ACCURACY, LATENCY, format_cost
from edgenas.search.strategies.contract import Strategy

EVALUATIONS = 70_000
_POINTS = 60  # of the history of the hypervolume
_MOST_OBJECTIVES = 4  # of which the hypervolume takes no seconds


def search_front(
    problem: Problem,
    *,
    target: str = "",
    seed: int = 0,
    strategy: str = DEFAULT_STRATEGY,
    evaluations: int = EVALUATIONS,
    inputs_digest: str = "",
    source: str = "",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Front:
    """Search the Pareto front of a problem.

    Args:
        problem: The space, its costs, objectives and limits.
        target: The name of the target that the costs belong to, kept in the front.
        seed: Decides everything that is random.
        strategy: The name of the search strategy.
        evaluations: The number of architectures that may be evaluated.
        inputs_digest: The digest of the inputs of this search, kept in the front.
        source: What the costs come from where they are not measurements of this run, kept in the front.
        on_progress: Called after each step of the strategy with the amount done and the amount of all.

    Returns:
        The nondominated set of all architectures that were evaluated and keep the limits.

    Raises:
        UsageError: The seed is negative, the strategy is unknown, it evaluated more than it may, or a cost model gave
            no number.
        BudgetError: No architecture keeps the limits; the message has the nearest value of each.
        SpaceError: The strategy evaluated genes that are no canonical genes of the space.
    """
    if seed < 0:
        raise UsageError(f"seed must be 0 or more, but got {seed}")
    search: Strategy = STRATEGIES.load(strategy)
    first = problem.first_genes
    if evaluations < len(first):
        raise UsageError(
            f"evaluations must be at least {len(first)}, the smallest, the largest and the known architectures, but got"
            f" {evaluations}"
        )
    check_limits(problem)
    evaluator = Evaluator(problem, evaluations, f"search strategy {strategy!r}")
    evaluator(first)
    try:
        search(problem, evaluator, budget=evaluator.left, seed=seed, progress=on_progress)
    except (EdgeNASError, KeyboardInterrupt):
        raise
    except Exception as error:  # whatever another package's function raises
        raise UsageError(f"search strategy {strategy!r} failed ({type(error).__name__}: {error})") from error
    rows = best_rows(evaluator.costs)
    if evaluator.costs.violation[rows[0]] > 0:
        raise BudgetError(_describe_best(problem, evaluator, rows))
    rows = rows[_order(problem, evaluator, rows)]
    values = {name: evaluator.values[rows, column] for column, name in enumerate(problem.costs)}
    return Front(
        problem.space, target, evaluator.genes[rows], values, tuple(problem.objectives), len(evaluator.genes),
        inputs_digest, source, strategy, problem.limit_values, _hypervolume_history(evaluator, rows),
        tuple(problem.real),
    )  # fmt: skip


def _order(problem: Problem, evaluator: Evaluator, rows: Rows) -> Rows:
    """Return the order of rows by latency, or the first objective that is to be small, then the greatest accuracy."""
    names = list(problem.costs)
    small = [name for name in problem.objectives if name not in problem.maximised] or list(problem.objectives)
    small.sort(key=lambda name: name != LATENCY)
    keys = [evaluator.values[rows, names.index(small[0])]]
    if ACCURACY in names:
        keys.insert(0, -evaluator.values[rows, names.index(ACCURACY)])
    return np.lexsort(keys)


def _hypervolume_history(evaluator: Evaluator, rows: Rows) -> tuple[tuple[int, float], ...]:
    """Return the share of the final hypervolume after some numbers of evaluations, the last of which is all.

    The box reaches from the best to the worst values on the final front.
    """
    costs, total = evaluator.costs, len(evaluator.genes)
    front = costs.objectives[rows]
    ideal, nadir = front.min(axis=0), front.max(axis=0)
    final = hypervolume(front, ideal, nadir) if front.shape[1] <= _MOST_OBJECTIVES else 0.0
    if not final:  # a single architecture, or many objectives
        return ()
    points = np.unique(np.geomspace(1, total, _POINTS).round().astype(int)).tolist()
    history, best = [], front[:0]
    for start, end in zip([0, *points], points, strict=False):
        kept = costs.objectives[start:end][costs.violation[start:end] == 0]
        best = np.concatenate([best, kept])
        if len(best):
            best = best[nondominated_mask(best)]
        history.append((end, min(hypervolume(best, ideal, nadir) / final, 1.0)))
    return tuple(history)


def _describe_best(problem: Problem, evaluator: Evaluator, rows: Rows) -> str:
    architecture = problem.space.decode(evaluator.genes[rows[:1]])[0].id
    found = dict(zip(problem.costs, evaluator.values[rows[0]].tolist(), strict=True))
    nearest = ", ".join(f"{format_cost(name, found[name])}" for name in problem.limits)
    return (
        f"none of {len(evaluator.genes)} evaluated architectures keeps {problem.format_limits()}; the nearest is"
        f" {architecture} with {nearest}; change a limit or evaluate more"
    )
