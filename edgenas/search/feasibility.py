"""Whether any architecture keeps a problem's limits, and how far each limit would have to move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgenas.costs import Genes, Vector
from edgenas.errors import BudgetError
from edgenas.search.problem import Problem
from edgenas.search.quantities import format_cost, noun_of
from edgenas.search.strategies.neighbours import all_neighbours

_SAMPLES, _BEAM, _MOST_STEPS = 1000, 16, 200
_BROKEN = 1e12  # of the score of an architecture that breaks another limit: worse than any cost


def check_limits(problem: Problem) -> None:
    """Raise BudgetError where no architecture is predicted to keep all limits of a problem.

    A beam of architectures descends by changes of one gene to the least violation. Where that is above zero, the same
    descent finds the nearest value of each limit that some architecture keeps together with the others. Limits of
    costs that are measured (``problem.real``) are left out: their architectures would have to be measured first.
    """
    names = [name for name in problem.limits if name not in problem.real]
    if not names:
        return
    limited = replace(
        problem, costs={name: problem.costs[name] for name in names}, objectives=names,
        limits={name: problem.limits[name] for name in names}, real=(),
    )  # fmt: skip
    sample = problem.space.sample(_SAMPLES, np.random.default_rng(0))
    genes = np.concatenate([problem.first_genes, sample])
    best, violation = _descend(limited, genes, lambda values: limited.costs_of(values).violation, enough=0.0)
    if violation > 0:
        raise BudgetError(_describe_nearest(limited, np.concatenate([best[None], genes])))


def _describe_nearest(problem: Problem, genes: Genes) -> str:
    """Return a message with the nearest feasible value of each limit, the others kept where that is possible."""
    found = []
    for name in problem.limits:
        others = {other: limit for other, limit in problem.limits.items() if other != name}
        nearest = _find_nearest(replace(problem, limits=others), name, genes)
        if nearest is not None:
            found.append(nearest + (" with the other limits kept" if others else ""))
        else:
            found.append(f"{_find_nearest(replace(problem, limits={}), name, genes)} without the other limits")
    return (
        f"no architecture keeps {problem.format_limits()}; the nearest values that one keeps: {', '.join(found)};"
        " change a limit (all predicted)"
    )


def _find_nearest(others: Problem, name: str, genes: Genes) -> str | None:
    """Return the best value of a cost of architectures that keep the other limits; None where none keeps them."""
    column, sign = list(others.costs).index(name), -1.0 if name in others.maximised else 1.0

    def score(values: Vector) -> Vector:
        violation = others.costs_of(values).violation
        return np.where(violation > 0, _BROKEN * (1 + violation), sign * values[:, column])

    best, reached = _descend(others, genes, score)
    if reached >= _BROKEN:
        return None
    return f"{noun_of(name)} {format_cost(name, sign * reached)} ({others.space.decode(best[None])[0].id})"


def _descend(
    problem: Problem, genes: Genes, score: Callable[[Vector], Vector], enough: float = -np.inf
) -> tuple[Genes, float]:
    """Return the architecture (G,) of the least score that a beam search finds from genes (N, G), and the score."""
    scores = score(problem.evaluate(genes))
    for _ in range(_MOST_STEPS):
        order = np.argsort(scores, kind="stable")[:_BEAM]
        genes, scores = genes[order], scores[order]
        if scores[0] <= enough:
            break
        neighbours = all_neighbours(problem.space, genes)
        found = score(problem.evaluate(neighbours)) if len(neighbours) else scores[:0]
        if not len(found) or found.min() >= scores[0]:
            break
        genes, scores = np.concatenate([genes, neighbours]), np.concatenate([scores, found])
    return genes[0], float(scores[0])
