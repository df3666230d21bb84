"""The full pipeline on the embedded digits: train, evaluate, profile, search, choose, export, measure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgenas.costs import Budget
from edgenas.devices import Target
from edgenas.errors import MissingExtraError, VerificationError
from edgenas.pipeline.choice import Choice, Deployment
from edgenas.pipeline.export import export
from edgenas.pipeline.export_formats import format_of
from edgenas.pipeline.measurement_store import SETTINGS, MeasurementStore
from edgenas.pipeline.prepared_model import PreparedModel, prepare
from edgenas.pipeline.progress import Progress
from edgenas.pipeline.run import Run
from edgenas.pipeline.training_config import DEFAULT
from edgenas.profilers import LatencyTable
from edgenas.runtimes import ExportFormat
from edgenas.search import Front

SUBNETS = 80
MINUTES = 0.6


@dataclass(frozen=True)
class DemoSubnet:
    """One row of the closing table: accuracy, latency and memory of a subnet's file."""

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
class DemoResult:
    """The results of the demo: table, front, choice, and the chosen subnet beside the smallest and the largest."""

    run: Run
    target: Target
    table: LatencyTable
    front: Front
    choice: Choice
    subnets: tuple[DemoSubnet, ...]
    int8: Path | None

    @property
    def deployment(self) -> Deployment:
        """How the chosen subnet runs on the target."""
        return self.choice.deployments[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the closing table and the choice as plain data."""
        return {
            "run": str(self.run.folder.root),
            "target": self.target.to_dict(),
            "holdout": self.table.holdout and asdict(self.table.holdout),
            "choice": self.choice.to_dict(),
            "subnets": [asdict(subnet) for subnet in self.subnets],
            "int8": None if self.int8 is None else str(self.int8),
        }


def run_demo(folder: str | Path, target: Target, progress: Progress | None = None) -> DemoResult:
    """Run every step on digits in a run folder; steps that are done are skipped.

    The latency budget is the middle between the fastest and the slowest subnet
    that were measured for the table.
    """
    run = Run(folder, DEFAULT.make_space("the demo's config"), progress=progress)
    run.train()
    predictor = run.evaluate(SUBNETS)
    run.workspace.progress.say(f"predictor {predictor}")
    table = run.profile(target, MINUTES)
    assert table.holdout is not None  # it was measured just now
    run.workspace.progress.say(f"table     {table.holdout.headline}")
    front = run.search([target])
    budget_ms = (table.holdout.fastest_ms + table.holdout.slowest_ms) / 2
    choice = run.choose({target: Budget(latency=f"{budget_ms:.3g}ms")})
    architectures = {"smallest": run.space.smallest, "chosen": choice.arch, "largest": run.space.largest}
    prepared = {name: prepare(run.workspace, architecture) for name, architecture in architectures.items()}
    with MeasurementStore(run.workspace.measurement_log(target), target, SETTINGS) as store:
        subnets = tuple(_measure_subnet(name, each, target, table, store) for name, each in prepared.items())
    return DemoResult(run, target, table, front, choice, subnets, try_export_int8_tflite(prepared["chosen"], target))


def try_export_int8_tflite(prepared: PreparedModel, target: Target) -> Path | None:
    """Export a model to its run as int8 TFLite; return None, after saying why, where that fails."""
    workspace, export_format = prepared.workspace, ExportFormat("tflite", "int8")
    out = workspace.folder.format_bundle(str(export_format), prepared.architecture.id)
    try:
        return export(workspace, prepared.architecture, target, out, export_format, prepared=prepared).path
    except (MissingExtraError, VerificationError) as error:
        workspace.progress.say(f"export    no {export_format}: {error}")
        return None


def _measure_subnet(
    name: str, prepared: PreparedModel, target: Target, table: LatencyTable, store: MeasurementStore
) -> DemoSubnet:
    """Measure a model's file on the target and export its bundle."""
    workspace, architecture = prepared.workspace, prepared.architecture
    model = prepared.build(format_of(target))
    with workspace.folder.writing():
        result = store.measure_reliably(model)
    out = workspace.folder.bundle(target.name, architecture.id)
    bundle = export(workspace, architecture, target, out, None, prepared=prepared)
    return DemoSubnet(
        name=name,
        architecture=architecture.id,
        test_accuracy=bundle.card["accuracy"]["test"],
        predicted_ms=float(table.latency_ms(workspace.space.encode([architecture]))[0]),
        measured_ms=result.median_ms,
        interval_ms=result.interval_ms,
        peak_bytes=result.peak_bytes,
        activation_bytes=bundle.card["activation_bytes"],
        validity=str(result.validity),
        model=str(bundle.model_path),
    )
