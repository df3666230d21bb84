"""The Pareto front of a search: its architectures with their costs, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from annotated_types import MinLen

from edgenas.costs import Genes, Vector
from edgenas.errors import FormatError, RunError, SpaceError, UsageError
from edgenas.files import Amount, Count, Fraction, Number, Schema, ShortText, rename_keys, write_bytes
from edgenas.registry import DEFAULT_STRATEGY
from edgenas.search.problem import Costs, GeneSpace
from edgenas.search.quantities import ACCURACY, LATENCY, MEMORY, format_cost, noun_of

Rows = npt.NDArray[np.int64]


def nondominated_mask(costs: Vector) -> npt.NDArray[np.bool_]:
    """Return the mask (N,) of the rows of ``costs`` (N, M) that no other row dominates.

    All costs are minimised. Of equal rows all are kept.
    """
    import moocore

    mask: npt.NDArray[np.bool_] = moocore.is_nondominated(costs, keep_weakly=True)
    return mask


def best_rows(costs: Costs) -> Rows:
    """Return the indices of the nondominated rows that keep all limits; where none does, of those nearest to it."""
    allowed = np.flatnonzero(costs.violation == costs.violation.min())
    return allowed[nondominated_mask(costs.objectives[allowed])]


def hypervolume(objectives: Vector, ideal: Vector, nadir: Vector) -> float:
    """Return the share of the box from ``ideal`` to ``nadir`` (M,) that rows of objectives (N, M) dominate, 0 to 1.

    E. Zitzler, L. Thiele, Multiobjective evolutionary algorithms, IEEE Transactions on Evolutionary Computation 3
    (1999) 257, computed by moocore.
    """
    import moocore

    scaled = (objectives - ideal) / np.where(nadir > ideal, nadir - ideal, 1.0)
    inside = scaled[(scaled <= 1).all(axis=1)]
    return float(moocore.hypervolume(inside, ref=np.ones(objectives.shape[1]))) if len(inside) else 0.0


def _upgrade_from_2(body: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the three costs, all of which were objectives, under their names."""
    names = (ACCURACY, LATENCY, MEMORY)
    kept = {key: value for key, value in body.items() if key not in names}
    values = {name: body[name] for name in names}
    return {**kept, "objectives": list(names), "limits": {}, "measured": [], "values": values, "hypervolume": []}


FRONT_SCHEMA = Schema(
    "front", 3, {1: lambda body: {**rename_keys(body, {"made_from": "inputs_digest"})}, 2: _upgrade_from_2}
)


@dataclass(frozen=True)
class _FrontData:
    """The keys of a front's file."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    inputs_digest: ShortText
    space: ShortText
    target: ShortText
    evaluations: Count
    source: ShortText
    objectives: Annotated[tuple[ShortText, ...], MinLen(1)]
    limits: dict[ShortText, Amount]
    architectures: Annotated[list[str], MinLen(1)]
    values: dict[ShortText, list[Number]]
    hypervolume: list[tuple[Count, Fraction]]
    strategy: ShortText = DEFAULT_STRATEGY
    measured: tuple[ShortText, ...] = ()

    def __post_init__(self) -> None:
        number = len(self.architectures)
        wrong = [name for name, column in self.values.items() if len(column) != number]
        if wrong:
            raise FormatError(f"values.{wrong[0]} must have one number for each of {number} subnets")
        if len(set(self.architectures)) < number:
            raise FormatError("architectures must name no subnet twice")
        missing = [name for name in (*self.objectives, *self.limits) if name not in self.values]
        if missing:
            raise FormatError(f"values must have {missing[0]}, which is an objective or limited")
        for name, column in self.values.items():
            stem = name.partition("@")[0]
            least = 0.0 if stem == ACCURACY or stem.endswith(("_ms", "_bytes", "_std")) else -np.inf
            most = 1.0 if stem == ACCURACY else np.inf
            if min(column) < least or max(column) > most:
                raise FormatError(f"values.{name} must be 0 or more{', and at most 1' if most == 1 else ''}")
        if LATENCY in self.objectives and sorted(self.values[LATENCY]) != self.values[LATENCY]:
            raise FormatError(f"values.{LATENCY} must ascend")


@dataclass(frozen=True, eq=False, repr=False)
class Front:
    """The Pareto front of a search, by ascending latency where that is an objective.

    Args:
        space: The space that was searched.
        target: The name of the target that the costs belong to.
        genes: The architectures, (N, G).
        values: Their costs by name, each (N,): ``accuracy`` (0 to 1), ``latency_ms`` (the median of one inference),
            ``peak_bytes`` (what each adds to a process), and whatever else the problem had. ``accuracy_std`` is the
            standard deviation of a predicted accuracy.
        objectives: The names of the costs that the search optimised.
        evaluations: The number of architectures that the search evaluated.
        inputs_digest: The digest of everything that the search used; another digest means that the front is outdated.
        source: What the costs come from where they are not measurements of the same run, else empty. Such latencies
            are sums of published means, and their memory is counted.
        strategy: The name of the strategy that searched.
        limits: The limits of costs that the search kept, by name.
        history: Hypervolume over evaluations: pairs of a number of evaluations and the share, 0 to 1, of the final
            hypervolume that the front had then.
        measured: The names of the costs that were measured of each architecture; all others are predicted or counted.

    Raises:
        UsageError: It has no architecture.

    Example:
        >>> import numpy as np
        >>> from edgenas import Front, MobileNetV3
        >>> space = MobileNetV3(width=0.5)
        >>> genes = space.encode([space.smallest, space.largest])
        >>> values = {"accuracy": np.array([0.71, 0.78]), "latency_ms": np.array([0.21, 0.48])}
        >>> Front(space, "my-board-onnxruntime-fp32-1t", genes, values, ("accuracy", "latency_ms"), evaluations=2)
        Front(2 architectures, latency 0.210 ms to 0.480 ms, my-board-onnxruntime-fp32-1t)
    """

    space: GeneSpace
    target: str
    genes: Genes
    values: Mapping[str, Vector]
    objectives: tuple[str, ...]
    evaluations: int
    inputs_digest: str = ""
    source: str = ""
    strategy: str = DEFAULT_STRATEGY
    limits: Mapping[str, float] = field(default_factory=dict)
    history: tuple[tuple[int, float], ...] = ()
    measured: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.genes):
            raise UsageError("a front must have at least one architecture, but got none; search again")

    def __len__(self) -> int:
        return len(self.genes)

    def __repr__(self) -> str:
        name = LATENCY if LATENCY in self.values else next(iter(self.values))
        count = f"{len(self)} architecture{'' if len(self) == 1 else 's'}"
        ends = " to ".join(format_cost(name, float(end)) for end in (self.values[name].min(), self.values[name].max()))
        return f"Front({count}, {noun_of(name)} {ends}, {self.target})"

    @property
    def accuracy(self) -> Vector:
        """The accuracies (N,), 0 to 1."""
        return self[ACCURACY]

    @property
    def latency_ms(self) -> Vector:
        """The median latencies of one inference, (N,)."""
        return self[LATENCY]

    @property
    def peak_bytes(self) -> Vector:
        """The peak memory that each adds to a process, (N,)."""
        return self[MEMORY]

    def __getitem__(self, name: str) -> Vector:
        """Return a cost (N,) by its name; UsageError, listing the names, where the front has no such cost."""
        if name not in self.values:
            raise UsageError(f"the front of {self.target} has no {noun_of(name)}; it has {', '.join(self.values)}")
        return self.values[name]

    def architectures(self) -> list[Any]:
        """Return the architectures in the front's order."""
        return list(self.space.decode(self.genes))

    def rows(self) -> list[dict[str, float]]:
        """Return the costs of each architecture by name, in the front's order."""
        columns = zip(*(column.tolist() for column in self.values.values()), strict=True)
        return [dict(zip(self.values, row, strict=True)) for row in columns]

    def format_limits(self) -> str:
        """Return the limits as text, such as ``latency 15.0 ms``; empty without any."""
        return ", ".join(f"{noun_of(name)} {format_cost(name, limit)}" for name, limit in self.limits.items())

    def save_csv(self, path: str | Path) -> None:
        """Write the front as a CSV file: a line for each architecture with its id, costs, and genes by their names."""
        import csv
        import io

        names = [gene.name for gene in self.space.genes]
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["architecture", *self.values, *names])
        for architecture, costs in zip(self.architectures(), self.rows(), strict=True):
            choices = [
                f"{gene.values[index]:g}" for gene, index in zip(self.space.genes, architecture.genes, strict=True)
            ]
            writer.writerow([architecture.id, *costs.values(), *choices])
        write_bytes(Path(path), text.getvalue().encode())

    def save(self, path: str | Path) -> None:
        """Write the front as a JSON document."""
        body: dict[str, Any] = {
            "inputs_digest": self.inputs_digest,
            "space": self.space.short_hash,
            "target": self.target,
            "evaluations": self.evaluations,
            "source": self.source,
            "strategy": self.strategy,
            "objectives": list(self.objectives),
            "limits": dict(self.limits),
            "measured": list(self.measured),
            "values": {name: column.tolist() for name, column in self.values.items()},
            "hypervolume": [list(point) for point in self.history],
            "architectures": [architecture.id for architecture in self.architectures()],
        }
        FRONT_SCHEMA.write(Path(path), body)

    @classmethod
    def load(cls, path: str | Path, space: GeneSpace) -> Front:
        """Return the front that ``save`` wrote.

        Raises FormatError when the file is damaged, RunError when the front belongs to another space.
        """
        try:
            data = FRONT_SCHEMA.read_as(_FrontData, Path(path))
            if data.space != space.short_hash:
                raise RunError(f"{path}: is of space {data.space}, not of {space.short_hash}; search again")
            genes = space.encode([space.from_id(text) for text in data.architectures])
        except SpaceError as error:
            raise FormatError(f"{path}: {error}; search again") from None
        return cls(
            space,
            data.target,
            genes,
            {name: np.array(column, dtype=np.float64) for name, column in data.values.items()},
            data.objectives,
            data.evaluations,
            data.inputs_digest,
            data.source,
            data.strategy,
            data.limits,
            tuple(data.hypervolume),
            data.measured,
        )
