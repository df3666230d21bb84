"""Where the predicted time of one subnet goes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edgenas.devices import Target
from edgenas.profilers import LatencyTable
from edgenas.space import Architecture
from edgenas.space.parts import Part

if TYPE_CHECKING:
    from edgenas.pipeline.run import Run

OVERHEAD = "overhead"
_NAMES = {
    "conv": "conv",
    "mbconv": "mbconv",
    "bottleneck": "bottleneck",
    "max_pool": "max pool",
    "pool": "average pool",
}


@dataclass(frozen=True)
class Row:
    """One part of a subnet, or the overhead: its predicted time, ms, and share of the whole, 0 to 1.

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

    ``interval_ms`` is the 95% interval of the whole; None where the table is
    published, for then it is not known. The parts add up to the whole; alone
    each is less certain than the whole is, for only sums were measured.
    """

    architecture: str
    target: str
    latency_ms: float
    interval_ms: tuple[float, float] | None
    rows: tuple[Row, ...]
    synthetic: bool

    @property
    def stages(self) -> dict[str, float]:
        """The time of each stage, ms, in the order of the rows."""
        names = dict.fromkeys(row.stage for row in self.rows)
        return {name: sum(row.ms for row in self.rows if row.stage == name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {**asdict(self), "stages_ms": self.stages}


def explain(run: Run, target: Target, architecture: Architecture) -> Explanation:
    """Where the predicted time of an architecture goes, by the target's table."""
    return explain_by(run.table(target), architecture)


def explain_by(table: LatencyTable, architecture: Architecture) -> Explanation:
    """Where the predicted time of an architecture goes, by a table."""
    genes = table.space.encode([architecture])
    latency, costs = float(table.latency_ms(genes)[0]), table.part_costs(architecture)
    stages = _stages(list(costs))
    rows = [
        Row(stages[name], name, _what(part), _size(part), costs[name], costs[name] / latency)
        for name, part in architecture.parts.items()
    ]
    beside = max(0.0, latency - sum(costs.values()))  # but for rounding
    rows.append(Row(OVERHEAD, OVERHEAD, "of one inference, beside its parts", "", beside, beside / latency))
    interval = None
    if table.process is not None:
        low, high = table.interval_ms(genes)[0].tolist()
        interval = (low, high)
    return Explanation(architecture.id, table.target, latency, interval, tuple(rows), table.synthetic)


def _stages(names: list[str]) -> dict[str, str]:
    """The stage of each part by its name; before the first is the stem, after the last the head."""
    found = {}
    outside = "stem"
    for name in names:
        first = name.partition(".")[0]
        if first.startswith("stage"):
            outside = "head"
        found[name] = first if first.startswith("stage") else outside
    return found


def _what(part: Part) -> str:
    words = _NAMES.get(part.operator, part.operator)
    if part.operator in ("conv", "mbconv", "bottleneck", "max_pool"):
        words += f" {part.kernel}x{part.kernel}"
    if part.stride > 1:
        words += f" /{part.stride}"
    if part.mid_channels:
        words += f", {part.mid_channels} inside"
    return words + (", SE" if part.se_channels else "")


def _size(part: Part) -> str:
    return f"{part.out_size}x{part.out_size}x{part.out_channels}"
