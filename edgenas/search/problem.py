"""What is searched for: a space, the costs of its architectures, objectives and limits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgenas.costs import CostModel, Genes, Vector
from edgenas.errors import EdgeNASError, UsageError
from edgenas.search.quantities import ACCURACY, check_names, format_cost, noun_of, parse_limit
from edgenas.space import Gene


class _Member(Protocol):
    """An architecture of a space: its id, and its genes."""

    @property
    def id(self) -> str: ...
    @property
    def genes(self) -> tuple[int, ...]: ...


class GeneSpace(Protocol):
    """What a search needs of a space; every ``SearchSpace`` has it, and so has a ``MeasuredTable``.

    A genes matrix is (N, G), each number an index into the values of its gene.
    """

    @property
    def genes(self) -> tuple[Gene, ...]: ...
    @property
    def radices(self) -> Genes: ...
    @property
    def size(self) -> int: ...
    @property
    def short_hash(self) -> str: ...
    @property
    def smallest(self) -> _Member: ...
    @property
    def largest(self) -> _Member: ...

    def canonical(self, genes: Genes, /) -> Genes: ...
    def sample(self, count: int, rng: np.random.Generator, /) -> Genes: ...
    def decode(self, genes: Genes, /) -> Sequence[_Member]: ...
    def encode(self, architectures: Sequence[Any], /) -> Genes: ...
    def from_id(self, text: str, /) -> _Member: ...


@dataclass(frozen=True)
class Costs:
    """The costs of N architectures as strategies see them.

    Args:
        objectives: The objectives (N, M), all to minimise: those that are to be large have their sign reversed.
        violation: The sum (N,) of the relative excesses over the limits; 0 where all are kept.
    """

    objectives: Vector
    violation: Vector

    def __len__(self) -> int:
        return len(self.violation)

    def __getitem__(self, rows: npt.NDArray[np.int64] | slice) -> Costs:
        return Costs(self.objectives[rows], self.violation[rows])

    def joined(self, other: Costs) -> Costs:
        """Return these costs and then those of ``other``."""
        return Costs(
            np.concatenate([self.objectives, other.objectives]), np.concatenate([self.violation, other.violation])
        )


@dataclass(frozen=True, eq=False)
class Problem:
    """Objectives and limits over the costs of a space's architectures.

    Args:
        space: The space to search.
        costs: The cost models by the names of their costs (``latency_ms``, ``macs``). All of them are on the front,
            objectives or not.
        objectives: The names of the costs to optimise, one or more.
        limits: Limits of costs, as numbers in the cost's own unit or as text with a unit (``"15ms"``): upper ones,
            lower ones for costs that are to be large.
        maximised: The costs that are to be large; all others are to be small.
        known: Architectures (K, G) to begin with, besides the smallest and the largest one, such as published ones.
        real: The costs that are measured when they are asked for, each taking seconds, instead of predicted.

    Raises:
        UsageError: A name is unknown or given twice, or a limit has no unit or is not positive.

    Example:
        >>> from edgenas import MobileNetV3, Problem
        >>> space = MobileNetV3(width=0.5)
        >>> costs = {"macs": space.macs, "params": space.params}
        >>> problem = Problem(space, costs, ("macs", "params"), {"macs": "20M"})
        >>> problem.evaluate(space.encode([space.smallest])).tolist()
        [[13681664.0, 1187448.0]]
        >>> problem
        Problem(least macs, least params; macs at most 20.0M)
    """

    space: GeneSpace
    costs: Mapping[str, CostModel]
    objectives: Sequence[str]
    limits: Mapping[str, float | str] = field(default_factory=dict)
    maximised: Collection[str] = (ACCURACY,)
    known: Genes | None = None
    real: Collection[str] = ()

    def __post_init__(self) -> None:
        if not self.objectives:
            raise UsageError(f"a search needs an objective, one or more of: {', '.join(self.costs)}")
        check_names(self.objectives, self.costs, "objective")
        check_names(self.limits, self.costs, "limit of")
        check_names(self.real, self.costs, "real cost")
        limits = {name: _to_number(name, limit) for name, limit in self.limits.items()}
        object.__setattr__(self, "limits", limits)

    def __repr__(self) -> str:
        goals = [f"{'greatest' if name in self.maximised else 'least'} {noun_of(name)}" for name in self.objectives]
        return f"Problem({', '.join(goals)}{'; ' if self.limits else ''}{self.format_limits()})"

    def format_limits(self) -> str:
        """Return the limits as text, for example ``latency at most 15.0 ms``; empty without any."""
        return ", ".join(self.format_limit(name, limit) for name, limit in self.limit_values.items())

    def format_limit(self, name: str, limit: float) -> str:
        """Return one limit as text."""
        return f"{noun_of(name)} {'at least' if name in self.maximised else 'at most'} {format_cost(name, limit)}"

    @property
    def limit_values(self) -> dict[str, float]:
        """The limits as numbers in the costs' units."""
        return {name: float(limit) for name, limit in self.limits.items()}

    @property
    def first_genes(self) -> Genes:
        """The architectures (K, G) that every search evaluates: the smallest, the largest, the known ones."""
        extremes = np.array([self.space.smallest.genes, self.space.largest.genes], dtype=np.int64)
        rows = extremes if self.known is None else np.concatenate([extremes, self.space.canonical(self.known)])
        _, first = np.unique(rows, axis=0, return_index=True)
        return rows[np.sort(first)]

    def evaluate(self, genes: Genes) -> Vector:
        """Return the costs (N, C) of genes (N, G), in the order and units of ``costs``.

        Raises:
            UsageError: A cost model gave no number for an architecture; it names both.
        """
        values = np.empty((len(genes), len(self.costs)))
        for column, (name, model) in enumerate(self.costs.items()):
            values[:, column] = self._apply(name, model, genes)
        return values

    def costs_of(self, values: Vector) -> Costs:
        """Return the objectives and violations of costs (N, C) as ``evaluate`` gives them."""
        names = list(self.costs)
        objectives = values[:, [names.index(name) for name in self.objectives]].copy()
        objectives *= [-1.0 if name in self.maximised else 1.0 for name in self.objectives]
        violation = np.zeros(len(values))
        for name, limit in self.limit_values.items():
            excess = values[:, names.index(name)] - limit
            violation += np.maximum(-excess if name in self.maximised else excess, 0) / abs(limit)
        return Costs(objectives, violation)

    def _apply(self, name: str, model: CostModel, genes: Genes) -> Vector:
        try:
            found = np.asarray(model(genes), dtype=np.float64)
        except EdgeNASError:
            raise
        except Exception as error:  # whatever a cost model of the caller raises
            raise UsageError(
                f"the cost model of {name} failed ({type(error).__name__}: {error}); correct it"
            ) from error
        if found.shape != (len(genes),):
            raise UsageError(
                f"the cost model of {name} must return one number for each of {len(genes)} architectures, but got shape"
                f" {found.shape}; correct it"
            )
        wrong = np.flatnonzero(~np.isfinite(found))
        if len(wrong):
            architecture = self.space.decode(genes[wrong[:1]])[0].id
            raise UsageError(
                f"the cost model of {name} gives {found[wrong[0]]} for architecture {architecture}, and {len(wrong)} of"
                f" {len(genes)} are no finite numbers; correct it, or the table that it reads"
            )
        return found


def _to_number(name: str, limit: float | str) -> float:
    value = parse_limit(name, limit) if isinstance(limit, str) else float(limit)
    if not 0 < value < np.inf:
        raise UsageError(f"the limit of {noun_of(name)} must be above zero and finite, but got {limit!r}")
    return value
