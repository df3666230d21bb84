"""pymoo's interfaces: a space with its cost models as a problem, and operators on genes."""

from __future__ import annotations

from typing import Any

import numpy as np
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair

from edgenas.costs import CostModel
from edgenas.space import SearchSpace


class ArchitectureProblem(Problem):  # type: ignore[misc] # pymoo has no types
    """The problem of minimising every cost model over the genes of a space."""

    def __init__(self, space: SearchSpace, costs: list[CostModel]) -> None:
        super().__init__(n_var=len(space.genes), n_obj=len(costs), xl=0, xu=space.radices - 1, vtype=int)
        self._costs = costs

    def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        out["F"] = np.column_stack([cost(x) for cost in self._costs])


class ClearDeadGenes(Repair):  # type: ignore[misc] # pymoo has no types
    """The repair that makes genes canonical, so that pymoo sees equal networks as equal rows."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self._space = space

    def _do(self, problem: Problem, X: Any, **kwargs: Any) -> Any:  # noqa: N803 - pymoo's name
        return self._space.canonical(X.astype(np.int64))


class ResampleGenes(Mutation):  # type: ignore[misc] # pymoo has no types
    """The mutation that replaces each gene with probability 1/G by a uniformly random one.

    Genes are categories: a small step up or down, as for numbers, has no meaning.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self._radices = space.radices

    def _do(self, problem: Problem, X: Any, *args: Any, random_state: Any, **kwargs: Any) -> Any:  # noqa: N803
        redrawn = random_state.integers(0, self._radices, size=X.shape)
        return np.where(random_state.random(X.shape) < 1 / X.shape[1], redrawn, X)
