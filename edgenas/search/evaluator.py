"""The evaluations of a search: checked, each architecture once, and kept in their order."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgenas.costs import Genes, Vector
from edgenas.errors import SpaceError, UsageError
from edgenas.search.problem import Costs, Problem

T = TypeVar("T", bound=np.generic)
_MOST_ASKED = 100  # rows for each evaluation of the budget, so that every search ends


class Evaluator:
    """Evaluates what a strategy proposes, no architecture twice, and keeps all of it.

    Args:
        problem: The costs, objectives and limits.
        budget: The number of architectures that may be evaluated.
        where: The strategy's name in messages.
    """

    def __init__(self, problem: Problem, budget: int, where: str) -> None:
        self._problem, self._budget, self._where = problem, budget, where
        self._asked = 0
        self._place: dict[bytes, int] = {}
        self._genes = np.empty((0, len(problem.space.genes)), dtype=np.int64)
        self._values = np.empty((0, len(problem.costs)))
        self._costs = problem.costs_of(self._values)

    def __call__(self, genes: Genes) -> Costs:
        """Return the costs of canonical genes (N, G); raise SpaceError for others, UsageError for too many."""
        genes = self._check(genes)
        new = genes[self.is_new(genes)]
        if len(new) > self.left:
            raise UsageError(
                f"{self._where}: has {self.left} of {self._budget} evaluations left, but asked for {len(new)};"
                " it must keep to its budget"
            )
        self._asked += len(genes)
        if self._asked > _MOST_ASKED * self._budget:
            raise UsageError(
                f"{self._where}: asked for {self._asked} architectures, most of them evaluated before, with a budget of"
                f" {self._budget} evaluations; it must end when it finds no others"
            )
        if len(new):
            self._record(new, self._problem.evaluate(new))
        return self.costs[np.array([self._place[key] for key in _row_keys(genes)], dtype=np.int64)]

    def _record(self, genes: Genes, values: Vector) -> None:
        count, end = len(self._place), len(self._place) + len(genes)
        costs = self._problem.costs_of(values)
        if end > len(self._genes):
            self._grow(max(end, 2 * count))
        self._genes[count:end], self._values[count:end] = genes, values
        self._costs.objectives[count:end], self._costs.violation[count:end] = costs.objectives, costs.violation
        self._place.update(zip(_row_keys(genes), range(count, end), strict=True))

    def is_new(self, genes: Genes) -> npt.NDArray[np.bool_]:
        """Return the mask (N,) of the rows that are not evaluated yet, of equal ones the first."""
        keys = _row_keys(genes)
        first = dict(zip(reversed(keys), range(len(keys) - 1, -1, -1), strict=True))
        return np.array([key not in self._place and first[key] == row for row, key in enumerate(keys)], dtype=bool)

    @property
    def left(self) -> int:
        """The number of architectures that may still be evaluated."""
        return self._budget - len(self._place)

    @property
    def genes(self) -> Genes:
        """Everything that was evaluated (E, G), in its order."""
        return self._genes[: len(self._place)]

    @property
    def values(self) -> Vector:
        """The costs (E, C) of everything that was evaluated."""
        return self._values[: len(self._place)]

    @property
    def costs(self) -> Costs:
        """The objectives and violations of everything that was evaluated."""
        return self._costs[slice(0, len(self._place))]

    def _grow(self, rows: int) -> None:
        def grown(array: npt.NDArray[T]) -> npt.NDArray[T]:
            return np.concatenate([array, np.empty((rows - len(array), *array.shape[1:]), dtype=array.dtype)])

        self._genes, self._values = grown(self._genes), grown(self._values)
        self._costs = Costs(grown(self._costs.objectives), grown(self._costs.violation))

    def _check(self, genes: Genes) -> Genes:
        """Return a copy of genes; raise SpaceError where they are no canonical genes of the space."""
        space = self._problem.space
        genes, columns = np.array(genes), len(space.genes)
        if genes.ndim != 2 or genes.shape[1] != columns or not len(genes) or genes.dtype.kind not in "iu":
            raise SpaceError(
                f"{self._where}: genes must be integers of shape (N, {columns}) with N of 1 or more,"
                f" but got {genes.dtype} of shape {genes.shape}"
            )
        wrong = np.argwhere((genes < 0) | (genes >= space.radices))
        if len(wrong):
            row, column = wrong[0]
            gene = space.genes[column]
            raise SpaceError(
                f"{self._where}: gene {gene.name} must be from 0 to {len(gene.values) - 1}, but got"
                f" {genes[row, column]} in row {row}"
            )
        genes = genes.astype(np.int64)
        dead = np.argwhere(space.canonical(genes) != genes)
        if len(dead):
            row, column = dead[0]
            raise SpaceError(
                f"{self._where}: gene {space.genes[column].name} has no effect in row {row} and must be 0, but"
                f" got {genes[row, column]}; call space.canonical first"
            )
        return genes


def _row_keys(genes: Genes) -> list[bytes]:
    """Return a key of each row that a dictionary can hold."""
    small = np.ascontiguousarray(genes, dtype=np.uint16)
    keys: Any = small.view(np.dtype((np.void, small.itemsize * small.shape[1]))).ravel().tolist()
    return list(keys)
