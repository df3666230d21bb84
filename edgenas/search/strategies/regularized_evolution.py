"""Regularised (aging) evolution: E. Real, A. Aggarwal, Y. Huang, Q. V. Le, arXiv 1802.01548.

The paper has one objective. Here each tournament draws weights of the objectives, so that its winner is the best of
one place of the front.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from edgenas.search.problem import Problem
from edgenas.search.strategies.contract import Evaluate
from edgenas.search.strategies.scalar import random_weights, weighted_costs

_POPULATION, _TOURNAMENT = 100, 25  # P and S of the paper
_TRIES = 20  # to find a child that is new


def search(
    problem: Problem, evaluate: Evaluate, *, budget: int, seed: int, progress: Callable[[int, int], None]
) -> None:
    """Replace the oldest architecture by a child of the winner of a tournament, again and again.

    A child differs from its parent in one gene, drawn again. A tenth of the budget, at most 100, is drawn at random
    first.
    """
    space, rng = problem.space, np.random.default_rng(seed)
    first = space.sample(max(1, min(_POPULATION, budget // 10)), rng)
    evaluate(first)
    spent = len(first)
    population = deque(range(len(evaluate.genes)), maxlen=_POPULATION)
    while spent < budget:
        players = rng.choice(population, size=min(_TOURNAMENT, len(population)), replace=False)
        members = evaluate.costs[players]
        weights = random_weights(members.objectives.shape[1], rng)
        ideal, nadir = members.objectives.min(axis=0), members.objectives.max(axis=0)
        winner = players[int(np.argmin(weighted_costs(members, weights, ideal, nadir)))]
        child = evaluate.genes[winner : winner + 1]
        for _ in range(_TRIES):
            child = evaluate.genes[winner : winner + 1].copy()
            column = rng.integers(child.shape[1])
            child[0, column] = rng.integers(space.radices[column])
            child = space.canonical(child)
            if evaluate.is_new(child)[0]:
                population.append(len(evaluate.genes))
                break
        evaluate(child)
        spent += 1
        progress(spent, budget)
