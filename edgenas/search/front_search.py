"""The search for a front: what is common to all strategies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgenas.costs import CostModel, Genes, Vector
from edgenas.errors import EdgeNASError, SpaceError, UsageError
from edgenas.registry import DEFAULT_STRATEGY, STRATEGIES
from edgenas.search.pareto import Front, nondominated_mask
from edgenas.search.strategies.contract import Strategy
from edgenas.space import SearchSpace

EVALUATIONS = 10_000


def search_front(
    space: SearchSpace,
    accuracy: CostModel,
    latency_ms: CostModel,
    peak_bytes: CostModel,
    *,
    target: str,
    seed: int,
    strategy: str = DEFAULT_STRATEGY,
    inputs_digest: str = "",
    source: str = "",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Front:
    """Search the Pareto front of high accuracy, low latency and low peak memory.

    Args:
        space: The space to search.
        accuracy: Predicts accuracy, 0 to 1.
        latency_ms: Predicts the median latency of one inference.
        peak_bytes: Predicts the peak memory of one inference.
        target: The name of the target that the costs belong to.
        seed: Decides everything that is random.
        strategy: The name of the search strategy.
        inputs_digest: The digest of the inputs of this search, kept in the front.
        source: What the costs come from where they are not measurements of this run, kept in the front.
        on_progress: Called after each step of the strategy with its number and the number of all.

    Returns:
        The nondominated set of all architectures that were evaluated.

    Raises:
        UsageError: The seed is negative, the strategy is unknown, or it evaluated more than it may.
        SpaceError: The strategy evaluated genes that are no canonical genes of the space.
    """
    if seed < 0:
        raise UsageError(f"seed must be 0 or more, but got {seed}")
    search: Strategy = STRATEGIES.load(strategy)
    evaluator = _Evaluator(space, [lambda genes: -accuracy(genes), latency_ms, peak_bytes], strategy)
    try:
        search(space, evaluator.evaluate, budget=EVALUATIONS, seed=seed, progress=on_progress)
    except (EdgeNASError, KeyboardInterrupt):
        raise
    except Exception as error:  # whatever another package's function raises
        raise UsageError(f"search strategy {strategy!r} failed ({type(error).__name__}: {error})") from error
    genes, costs = evaluator.finish()
    best = np.flatnonzero(nondominated_mask(costs))
    best = best[np.lexsort((costs[best, 0], costs[best, 1]))]
    negative_accuracy, latencies, peaks = costs[best].T
    return Front(
        space, target, genes[best], -negative_accuracy, latencies, peaks, len(genes), inputs_digest, source, strategy
    )


class _Evaluator:
    """Checks what a strategy proposes, evaluates it, and keeps it."""

    def __init__(self, space: SearchSpace, models: list[CostModel], strategy: str) -> None:
        self._space, self._models = space, models
        self._where = f"search strategy {strategy!r}"
        self._genes: list[Genes] = []
        self._costs: list[Vector] = []
        self._left = EVALUATIONS

    def evaluate(self, genes: Genes) -> Vector:
        """Return the costs (N, 3) of canonical genes (N, G); raise SpaceError for others, UsageError for too many."""
        genes = self._check(genes)
        if len(genes) > self._left:
            raise UsageError(
                f"{self._where}: has {self._left} of {EVALUATIONS} evaluations left, but asked for {len(genes)};"
                " it must keep to its budget"
            )
        self._left -= len(genes)
        return self._apply_models(genes)

    def finish(self) -> tuple[Genes, Vector]:
        """Return the distinct genes (N, G) of everything that was evaluated, and their costs (N, 3).

        The smallest and the largest architecture are among them. The costs are
        those of the first time.
        """
        self._apply_models(self._space.encode([self._space.smallest, self._space.largest]))
        distinct, first_rows = np.unique(np.concatenate(self._genes), axis=0, return_index=True)
        return distinct, np.concatenate(self._costs)[first_rows]

    def _apply_models(self, genes: Genes) -> Vector:
        # Repeated rows stay: the last bit of a predicted accuracy depends on the shape of the matrix, so that without
        # them a seed would lead to another front.
        costs = np.column_stack([model(genes) for model in self._models])
        self._genes.append(genes)
        self._costs.append(costs)
        return costs.copy()

    def _check(self, genes: Genes) -> Genes:
        """Return a copy of genes; raise SpaceError where they are no canonical genes of the space."""
        genes, columns = np.array(genes), len(self._space.genes)
        if genes.ndim != 2 or genes.shape[1] != columns or not len(genes) or genes.dtype.kind not in "iu":
            raise SpaceError(
                f"{self._where}: genes must be integers of shape (N, {columns}) with N of 1 or more,"
                f" but got {genes.dtype} of shape {genes.shape}"
            )
        wrong = np.argwhere((genes < 0) | (genes >= self._space.radices))
        if len(wrong):
            row, column = wrong[0]
            gene = self._space.genes[column]
            raise SpaceError(
                f"{self._where}: gene {gene.name} must be from 0 to {len(gene.values) - 1}, but got"
                f" {genes[row, column]} in row {row}"
            )
        genes = genes.astype(np.int64)
        dead = np.argwhere(self._space.canonical(genes) != genes)
        if len(dead):
            row, column = dead[0]
            raise SpaceError(
                f"{self._where}: gene {self._space.genes[column].name} has no effect in row {row} and must be 0, but"
                f" got {genes[row, column]}; call space.canonical first"
            )
        return genes
