"""What a search strategy is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edgenas.costs import Genes, Vector
from edgenas.space import SearchSpace


class Strategy(Protocol):
    """A function that proposes architectures to evaluate; its entry point is in group ``edgenas.strategies``.

    A strategy decides only which genes are evaluated next. The search keeps
    all of them with their costs, adds the smallest and the largest
    architecture where they were not evaluated, and makes the front of the
    nondominated ones, so a strategy returns nothing. It may end before its
    budget. What it raises ends the search.
    """

    def __call__(
        self,
        space: SearchSpace,
        evaluate: Callable[[Genes], Vector],
        *,
        budget: int,
        seed: int,
        progress: Callable[[int, int], None],
    ) -> None:
        """Search a space for architectures of low costs.

        Args:
            space: The space to search.
            evaluate: Returns the costs (N, 3), all to minimise, of canonical genes (N, G): accuracy with its sign
                reversed, latency in ms, peak memory in bytes. Raises SpaceError for anything but canonical genes of
                the space (``space.canonical`` clears dead genes), and UsageError beyond the budget.
            budget: The number of rows that ``evaluate`` takes in all. Repeated ones count, so that every search ends.
            seed: 0 or more; decides everything that is random. The global generators are left alone.
            progress: To be called after each step with its number and the number of all.
        """
