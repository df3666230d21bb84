"""What a search strategy is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgenas.costs import Genes, Vector
from edgenas.search.problem import Costs, Problem


class Evaluate(Protocol):
    """Evaluates architectures, each once: one that was evaluated before is looked up."""

    def __call__(self, genes: Genes, /) -> Costs:
        """Return the costs of canonical genes (N, G), a row each.

        Raises SpaceError for anything but canonical genes of the space (``space.canonical`` clears dead genes), and
        UsageError beyond the budget.
        """

    def is_new(self, genes: Genes, /) -> npt.NDArray[np.bool_]:
        """Return the mask (N,) of the rows that were not evaluated yet; of equal ones the first is new."""

    @property
    def genes(self) -> Genes:
        """All that was evaluated (E, G), in its order. It begins with ``problem.first_genes``."""

    @property
    def values(self) -> Vector:
        """The costs (E, C) of all that was evaluated, in the order and units of ``problem.costs``."""

    @property
    def costs(self) -> Costs:
        """The objectives (E, M) and violations (E,) of all that was evaluated."""


class Strategy(Protocol):
    """A function that proposes architectures to evaluate; its entry point is in group ``edgenas.strategies``.

    A strategy decides only which genes are evaluated next. The search
    evaluates ``problem.first_genes`` before it begins, keeps all architectures
    with their costs, and makes the front of the nondominated ones, so a
    strategy returns nothing. It may end before its budget. What it raises ends
    the search.

    It depends on nothing but its arguments: then a search that was killed
    resumes by being called again, with what it had evaluated from a store.
    """

    def __call__(
        self,
        problem: Problem,
        evaluate: Evaluate,
        *,
        budget: int,
        seed: int,
        progress: Callable[[int, int], None],
    ) -> None:
        """Search for architectures of low costs.

        Args:
            problem: The space in ``problem.space``, objectives and limits.
            evaluate: Evaluates architectures, and knows all that were.
            budget: The number of architectures that may still be evaluated. Asking again for known ones is free, up to
                a hundred times the budget.
            seed: 0 or more; decides everything that is random. The global generators are left alone.
            progress: To be called after each step with the amount done and the amount of all, such as evaluations.
        """
