"""Dividing the predicted latency of a subnet among its parts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgenas.profilers import LatencyTable
from edgenas.space import Architecture
from edgenas.space.parts import format_shape
from edgenas.units import format_ms

OVERHEAD = "overhead"


@dataclass(frozen=True)
class PartLatency:
    """One part of a subnet, or the overhead: its predicted time, ms, and share of the latency, 0 to 1.

    ``what``: operator, kernel, stride and inner channels; ``out``: height, width
    and channels of its output.
    """

    stage: str
    name: str
    what: str
    out: str
    ms: float
    share: float


@dataclass(frozen=True)
class Explanation:
    """A subnet's predicted median latency, ms, divided among its parts, from input to output, the overhead last.

    ``interval_ms`` is the 95% interval of the latency; None for a published
    table, which has no intervals. The parts add up to the latency. A single
    part is less certain than the sum, because only sums were measured.
    """

    architecture: str
    target: str
    latency_ms: float
    interval_ms: tuple[float, float] | None
    rows: tuple[PartLatency, ...]
    synthetic: bool

    def __repr__(self) -> str:
        return (
            f"Explanation({self.architecture} on {self.target}, {format_ms(self.latency_ms)}, {len(self.rows)} parts)"
        )

    @property
    def stages(self) -> dict[str, float]:
        """The time of each stage, ms, in the order of the rows."""
        names = dict.fromkeys(row.stage for row in self.rows)
        return {name: sum(row.ms for row in self.rows if row.stage == name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as plain data."""
        return {**asdict(self), "stages_ms": self.stages}


def explain(table: LatencyTable, architecture: Architecture) -> Explanation:
    """Divide the predicted latency of an architecture among its parts, by a table."""
    genes = table.space.encode([architecture])
    latency, costs = float(table.latency_ms(genes)[0]), table.part_costs_by_name(architecture)
    stages = _name_stages(list(costs))
    rows = [
        PartLatency(stages[name], name, part.what, format_shape(part.out_shape), costs[name], costs[name] / latency)
        for name, part in architecture.parts.items()
    ]
    overhead = max(0.0, latency - sum(costs.values()))  # rounding may leave less than nothing
    rows.append(
        PartLatency(OVERHEAD, OVERHEAD, "of one inference, outside its parts", "", overhead, overhead / latency)
    )
    interval = None
    if table.process is not None:
        low, high = table.interval_ms(genes)[0].tolist()
        interval = (low, high)
    return Explanation(architecture.id, table.target, latency, interval, tuple(rows), table.synthetic)


def _name_stages(names: list[str]) -> dict[str, str]:
    """Return the stage of each part by its name; parts before the first are the stem, after the last the head."""
    found = {}
    outside = "stem"
    for name in names:
        first = name.partition(".")[0]
        if first.startswith("stage"):
            outside = "head"
        found[name] = first if first.startswith("stage") else outside
    return found
