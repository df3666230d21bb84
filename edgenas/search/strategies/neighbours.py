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
    rows, changed = _change_one_gene(space, genes, np.arange(_count_changes(space, genes)))
    distinct: Genes = np.unique(space.canonical(changed[(changed != genes[rows]).any(axis=1)]), axis=0)
    return distinct


def draw_neighbours(space: GeneSpace, genes: Genes, most: int, rng: np.random.Generator) -> Genes:
    """Return architectures (K, G) that differ from one of genes (N, G) in the value of one gene, or in none.

    Args:
        space: The space.
        genes: The architectures, (N, G).
        most: The largest K. Where there are more, they are drawn at random; where there are fewer, all are returned.
        rng: Decides which, and their order.
    """
    drawn = rng.permutation(_count_changes(space, genes))[:most]
    return space.canonical(_change_one_gene(space, genes, drawn)[1])


def _count_changes(space: GeneSpace, genes: Genes) -> int:
    """Return how many pairs there are of one of genes (N, G) and a value of one gene."""
    return len(genes) * int(space.radices.sum())


def _change_one_gene(space: GeneSpace, genes: Genes, pairs: Genes) -> tuple[Genes, Genes]:
    """Return for numbers of pairs (K,) the rows of genes (K,) and these with one gene at the pair's value, (K, G)."""
    ends = np.cumsum(space.radices)
    rows, values = np.divmod(pairs, ends[-1])
    columns = np.searchsorted(ends, values, side="right")
    changed = genes[rows]
    changed[np.arange(len(rows)), columns] = values - (ends - space.radices)[columns]
    return rows, changed
