"""A local search around the front of what was evaluated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgenas.costs import Genes, Vector
from edgenas.search.pareto import best_rows
from edgenas.search.problem import GeneSpace
from edgenas.search.strategies.contract import Evaluate
from edgenas.search.strategies.neighbours import draw_neighbours, mutate

_BATCH = 500
_CROSSED = 0.8  # of the children have two parents
_MATE_DISTANCE = 0.05  # of the span of an objective: the standard deviation between the parents of a child
_GENES_REDRAWN = (0.5, 1.0, 2.0)
_NEIGHBOURS = 8  # for each child of a batch, drawn where children are rare
_RARE, _PATIENCE = 0.25, 20  # share of children that are new, and rounds with no more of them


def refine_front(
    space: GeneSpace, evaluate: Evaluate, budget: int, rng: np.random.Generator, progress: Callable[[int], None]
) -> None:
    """Evaluate children of the front's architectures until the budget is spent or hardly any is new.

    A Pareto local search (L. Paquete, M. Chiarandini, T. Stuetzle, Pareto local optimum sets in the biobjective
    traveling salesman problem, 2004) with random neighbours instead of all. Parents are drawn at uniformly random
    values of a random objective, so that sparse stretches of the front get as many children as dense ones; a child
    takes each gene from one of two parents of similar costs, and a few genes are drawn again. Where children become
    rare, as in a small space, neighbours of the front that differ in one gene are evaluated, all of them in the end.
    """
    batch, spent, idle = int(np.clip(budget // 50, 10, _BATCH)), 0, 0
    genes, costs = evaluate.genes, evaluate.costs
    while spent < budget and idle < _PATIENCE:
        rows = best_rows(costs)
        genes, costs = genes[rows], costs[rows]
        children = _breed(space, genes, costs.objectives, batch, rng)
        children = children[evaluate.is_new(children)]
        if len(children) <= _RARE * batch:
            neighbours = draw_neighbours(space, genes, _NEIGHBOURS * batch, rng)
            children = np.concatenate([neighbours[evaluate.is_new(neighbours)][:batch], children])
            children = children[evaluate.is_new(children)]
        children = children[: budget - spent]
        idle = 0 if len(children) > _RARE * batch else idle + 1
        if len(children):
            genes, costs = np.concatenate([genes, children]), costs.joined(evaluate(children))
            spent += len(children)
            progress(spent)


def _breed(space: GeneSpace, front: Genes, objectives: Vector, count: int, rng: np.random.Generator) -> Genes:
    """Return children (count, G) of architectures (N, G) of a front with their objectives (N, M)."""
    children = []
    for column in range(objectives.shape[1]):
        share = count // objectives.shape[1] + (column < count % objectives.shape[1])
        order = np.argsort(objectives[:, column], kind="stable")
        values = objectives[order, column]
        span = values[-1] - values[0]
        places = rng.uniform(values[0], values[-1], size=share)
        mates = places + rng.normal(0, _MATE_DISTANCE, size=share) * span
        parents, others = (
            front[order[np.clip(np.searchsorted(values, each), 0, len(order) - 1)]] for each in (places, mates)
        )
        crossed = (rng.random(parents.shape) < 0.5) & (rng.random((share, 1)) < _CROSSED)
        children.append(np.where(crossed, others, parents))
    genes = np.concatenate(children)
    return mutate(space, genes, rng.choice(_GENES_REDRAWN, size=(len(genes), 1)), rng)
