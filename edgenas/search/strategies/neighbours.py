"""Architectures near others: what mutation, crossover and local search share."""

from __future__ import annotations

import numpy as np

from edgenas.costs import Genes, Vector
from edgenas.search.problem import GeneSpace


def mutate(space: GeneSpace, genes: Genes, rate: float | Vector, rng: np.random.Generator) -> Genes:
    """Return genes (N, G) with each gene replaced, with probability ``rate / G``, by a uniformly random value.

    Genes are categories: a small step up or down, as for numbers, has no meaning.

    Args:
        space: The space.
        genes: The parents, (N, G).
        rate: The mean number of genes that are drawn again; a number, or one for each row (N, 1).
        rng: Decides all of it.
    """
    redrawn = rng.integers(0, space.radices, size=genes.shape)
    return space.canonical(np.where(rng.random(genes.shape) < rate / genes.shape[1], redrawn, genes))


def all_neighbours(space: GeneSpace, genes: Genes) -> Genes:
    """Return all distinct architectures (K, G) that differ from one of genes (N, G) in the value of one gene."""
    rows = []
    for column, radix in enumerate(space.radices.tolist()):
        for value in range(radix):
            changed = genes[genes[:, column] != value]
            changed[:, column] = value
            rows.append(changed)
    distinct: Genes = np.unique(space.canonical(np.concatenate(rows)), axis=0)
    return distinct


def draw_neighbours(space: GeneSpace, genes: Genes, most: int, rng: np.random.Generator) -> Genes:
    """Return architectures (K, G) that differ from one of genes (N, G) in the value of one gene, or in none.

    Args:
        space: The space.
        genes: The architectures, (N, G).
        most: The largest K. Where there are more, they are drawn at random; where there are fewer, all are returned.
        rng: Decides which, and their order.
    """
    ends = np.cumsum(space.radices)
    drawn = rng.permutation(len(genes) * int(ends[-1]))[:most]
    rows, values = np.divmod(drawn, int(ends[-1]))
    columns = np.searchsorted(ends, values, side="right")
    neighbours = genes[rows]
    neighbours[np.arange(len(rows)), columns] = values - (ends - space.radices)[columns]
    return space.canonical(neighbours)
