"""The whole road on the embedded digits: train, evaluate, profile, search, choose, export, measure again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgenas.costs import Budget
from edgenas.devices import Target
from edgenas.errors import MissingExtraError, VerificationError
from edgenas.export import ExportFormat
from edgenas.pipeline.choose import Choice
from edgenas.pipeline.export import export
from edgenas.pipeline.export_formats import format_of
from edgenas.pipeline.measurement_store import SETTINGS, MeasurementStore
from edgenas.pipeline.prepared_model import PreparedModel, prepare
from edgenas.pipeline.progress import Progress
from edgenas.pipeline.run import Run
from edgenas.profilers import LatencyTable
from edgenas.search import Front
from edgenas.space import MobileNetV3

SPACE = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
SUBNETS = 80
MINUTES = 0.6


@dataclass(frozen=True)
class Row:
    """One subnet of the closing table: what its file reaches and costs."""

    name: str
    architecture: str
    test_accuracy: float
    predicted_ms: float
    measured_ms: float
    interval_ms: tuple[float, float]
    peak_bytes: int | None
    activation_bytes: int
    validity: str
    model: str


@dataclass(frozen=True)
class Demo:
    """What the demo ends with."""

    run: Run
    target: Target
    table: LatencyTable
    front: Front
    choice: Choice
    rows: tuple[Row, ...]
    int8: Path | None

    def to_dict(self) -> dict[str, Any]:
        """The closing table and the choice as plain data."""
        return {
            "run": str(self.run.layout.root),
            "target": self.target.to_dict(),
            "holdout": self.table.holdout and asdict(self.table.holdout),
            "choice": self.choice.to_dict(),
            "subnets": [asdict(row) for row in self.rows],
            "int8": None if self.int8 is None else str(self.int8),
        }


def demo(folder: str | Path, target: Target, progress: Progress | None = None) -> Demo:
    """Do every step on digits in a run folder, each skipped when its result lies there.

    The latency budget is the middle between the fastest and the slowest subnet
    that were measured for the table.
    """
    run = Run(folder, SPACE, progress=progress)
    run.train()
    predictor = run.evaluate(SUBNETS)
    run.progress.say(f"predictor {predictor}")
    table = run.profile(target, MINUTES)
    assert table.holdout is not None  # it was measured just now
    run.progress.say(f"table     {table.holdout.headline}")
    front = run.search([target])
    middle = (table.holdout.fastest_ms + table.holdout.slowest_ms) / 2
    choice = run.choose({target: Budget(latency=f"{middle:.3g}ms")})
    subnets = {"smallest": run.space.smallest, "chosen": choice.arch, "largest": run.space.largest}
    networks = {name: prepare(run, architecture) for name, architecture in subnets.items()}
    log, say = run.layout.measurements(target.name), run.progress.say
    with MeasurementStore(log, target, SETTINGS, say=say) as measurer:
        rows = tuple(_row(name, prepared, target, table, measurer) for name, prepared in networks.items())
    return Demo(run, target, table, front, choice, rows, int8_bundle(networks["chosen"], target))


def int8_bundle(prepared: PreparedModel, target: Target) -> Path | None:
    """A network's bundle in its run as int8 TFLite; None, saying why, where that cannot be made or loses too much."""
    run, architecture, kind = prepared.run, prepared.architecture, ExportFormat("tflite", "int8")
    out = run.layout.format_bundle(str(kind), architecture.id)
    try:
        return export(run, architecture, target, out, kind, prepared=prepared).path
    except (MissingExtraError, VerificationError) as error:
        run.progress.say(f"export    no {kind}: {error}")
        return None


def _row(name: str, prepared: PreparedModel, target: Target, table: LatencyTable, measurer: MeasurementStore) -> Row:
    run, architecture = prepared.run, prepared.architecture
    model, _ = prepared.build(format_of(target))
    with run.layout.writing():
        rounds = measurer.measure_reliably(model)
    bundle = export(run, architecture, target, run.layout.bundle(target.name, architecture.id), prepared=prepared)
    genes = run.space.encode([architecture])
    return Row(
        name=name,
        architecture=architecture.id,
        test_accuracy=bundle.card["accuracy"]["test"],
        predicted_ms=float(table.latency_ms(genes)[0]),
        measured_ms=rounds.median_ms,
        interval_ms=rounds.interval_ms,
        peak_bytes=rounds.peak_bytes,
        activation_bytes=bundle.card["activation_bytes"],
        validity=str(rounds.validity),
        model=str(bundle.model),
    )
