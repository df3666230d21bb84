"""What is known of one architecture of a run: its blocks, their costs, and its predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgenas.accuracy import AccuracyPredictor
from edgenas.errors import RunError
from edgenas.pipeline.finetuned import FinetunedSubnet
from edgenas.pipeline.run import Run
from edgenas.profilers import LatencyTable
from edgenas.space import Part
from edgenas.space.parts import format_shape, macs, params


@dataclass(frozen=True)
class Block:
    """A part: its choices, None where it has none, and its costs."""

    name: str
    what: str
    kernel: int | None
    expand_ratio: float | None
    width: int
    out: str
    macs: int
    params: int


@dataclass(frozen=True)
class ShownLatency:
    """What a target's table predicts: the median latency, what each part and the overhead have of it, memory."""

    target: str
    latency_ms: float
    overhead_ms: float
    part_ms: dict[str, float]
    peak_bytes: float


@dataclass(frozen=True)
class ShownArchitecture:
    """An architecture with everything that a run knows of it without measuring. ``accuracy`` is None before it can be
    predicted, ``accuracy_std`` where the predictor has none. ``finetuned`` is the subnet itself where it has weights of
    its own, else all that have its architecture; their accuracies are evaluated, not predicted."""

    architecture: str
    space: str
    resolution: int
    macs: float
    params: float
    weight_bytes: float
    activation_bytes: float
    accuracy: float | None
    accuracy_std: float | None
    blocks: tuple[Block, ...]
    latencies: tuple[ShownLatency, ...]
    finetuned: tuple[FinetunedSubnet, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def show(run: Run, name: str, devices: Sequence[str] | None = None) -> ShownArchitecture:
    """Return what a run knows of an architecture.

    Args:
        run: The run.
        name: ``min``, ``max``, ``chosen``, an id, or the path of a JSON file.
        devices: The devices of which latencies are shown; by default all targets that have a table.

    Raises:
        UsageError: A name is unknown.
        RunError: A named device has no latency table.
    """
    architecture = run.architecture(name)
    genes, space = run.space.encode([architecture]), run.space
    if devices:
        tables = [run.table(run.target(device)) for device in devices]
    else:
        folder = run.folder
        tables = [LatencyTable.load(folder.table(target), space) for target in folder.targets_with_table()]
    accuracy = deviation = None
    try:
        predictor = run.predictor()
    except RunError:
        pass  # nothing was evaluated yet
    else:
        accuracy = float(predictor(genes)[0])
        deviation = float(predictor.accuracy_std(genes)[0]) if isinstance(predictor, AccuracyPredictor) else None
    latencies = []
    for table in tables:
        latency, parts = float(table.latency_ms(genes)[0]), table.part_costs_by_name(architecture)
        overhead = max(0.0, latency - sum(parts.values()))
        latencies.append(ShownLatency(table.target, latency, overhead, parts, float(table.peak_bytes(genes)[0])))
    return ShownArchitecture(
        architecture.id,
        f"{space.family} {space.short_hash}",
        architecture.resolution,
        float(space.macs(genes)[0]),
        float(space.params(genes)[0]),
        float(space.weight_bytes(genes)[0]),
        float(space.activation_bytes(genes)[0]),
        accuracy,
        deviation,
        tuple(_describe(place, part) for place, part in architecture.parts.items()),
        tuple(latencies),
        tuple(each for each in run.finetuned() if each.architecture.startswith(architecture.id)),
    )


def _describe(name: str, part: Part) -> Block:
    middle = getattr(part, "mid_channels", 0)
    return Block(
        name,
        part.label,
        getattr(part, "kernel", None),
        round(middle / part.in_channels, 2) if middle else None,
        part.out_shape[0],
        format_shape(part.out_shape),
        macs(part),
        params(part),
    )
