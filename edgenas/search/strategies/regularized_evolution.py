"""Regularised (aging) evolution: E. Real, A. Aggarwal, Y. Huang, Q. V. Le, arXiv 1802.01548.

The paper has one objective. Here each tournament draws weights of the objectives, so that its winner is the best of
one place of the front.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from edgenas.search.pareto import Rows
from edgenas.search.problem import Costs, Problem
from edgenas.search.strategies.contract import Evaluate
from edgenas.search.strategies.scalar import random_weights, weighted_costs

_POPULATION, _TOURNAMENT = 100, 25  # P and S of the paper
_TRIES = 1000  # to find a child that is new


def search(
    problem: Problem, evaluate: Evaluate, *, budget: int, seed: int, progress: Callable[[int, int], None]
) -> None:
    """Replace the oldest architecture by a child of the winner of a tournament, again and again.

    A child differs from its parent in one gene, drawn again. A tenth of the budget, at most 100, is drawn at random
    first.
    """
    space, rng = problem.space, np.random.default_rng(seed)
    first = space.sample(max(1, min(_POPULATION, budget // 10)), rng)
    first = first[evaluate.is_new(first)]
    if len(first):
        evaluate(first)
    spent, tries = len(first), 0
    population = deque(range(len(evaluate.genes)), maxlen=_POPULATION)
    while spent < budget and tries < _TRIES:
        winner = _hold_tournament(evaluate.costs, rng.choice(population, size=_TOURNAMENT), rng)
        child = evaluate.genes[winner : winner + 1].copy()
        column = rng.integers(child.shape[1])
        child[0, column] = rng.integers(space.radices[column])
        child = space.canonical(child)
        tries += 1
        if evaluate.is_new(child)[0]:
            population.append(len(evaluate.genes))
            evaluate(child)
            spent, tries = spent + 1, 0
            progress(spent, budget)


def _hold_tournament(costs: Costs, players: Rows, rng: np.random.Generator) -> int:
    """Return the player (an index of costs) that is the best by random weights of the objectives."""
    members = costs[players]
    ideal, nadir = members.objectives.min(axis=0), members.objectives.max(axis=0)
    weights = random_weights(members.objectives.shape[1], rng)
    return int(players[np.argmin(weighted_costs(members, weights, ideal, nadir))])
