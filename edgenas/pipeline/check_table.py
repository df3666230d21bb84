"""The step that compares a latency table with fresh subnets."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgenas.costs import Genes
from edgenas.devices import Target, check_present
from edgenas.errors import ModelError, RunError, UsageError
from edgenas.files import parse_dataclass, read_bytes, sha256_hex
from edgenas.pipeline.documents import TABLE_CHECK, TABLE_CHECK_PLAN
from edgenas.pipeline.export_formats import format_of
from edgenas.pipeline.measurement_store import MeasurementStore
from edgenas.pipeline.profile import SETTINGS, report_failed_subnets
from edgenas.pipeline.workspace import Workspace
from edgenas.profilers import LatencyTable, Measurement, MeasurementResult
from edgenas.profilers.latency.agreement import ErrorMetrics, compute_error_metrics
from edgenas.profilers.latency.drift import Moments
from edgenas.profilers.latency.fit import part_count_matrix
from edgenas.profilers.latency.gaussian_process import PartProcess
from edgenas.profilers.latency.holdout import TWO_SIDED_95, HoldoutReport, count_validity
from edgenas.profilers.measure.cpu_speed import median_probe_ms
from edgenas.profilers.measure.validity import MAX_DRIFT
from edgenas.runtimes.building import write_random_file

# So many processes of the reference model say how fast the device is now.
_REFERENCES = 5
# One process of each would make a table look worse than it is while other programs run.
_SETTINGS = replace(SETTINGS, processes=3, max_processes=3)
_FEWEST, _MOST = 10, 1000
_DRAWS = 64  # subnets at a time; most of the first such draw are fresh
_MOST_DRAWS = 200


@dataclass(frozen=True)
class TableCheck:
    """The holdout report of a table beside the errors on fresh random subnets.

    ``measured_ms``, ``predicted_ms``: medians by ``architectures``.
    ``slower``: how much slower than predicted all fresh subnets are in common,
    0.03 for 3%; ``tolerance``: the drift at one moment that 95% of checks stay
    below, because the subnets are measured within a minute and the device
    drifts. ``drift_corrected``: the errors without that, compared with the
    drift-corrected errors of the holdout report. ``reference_then_ms``,
    ``reference_now_ms``: latency of the reference model when the table was made
    and now; None where it ran too few times. ``probe_then_ms``,
    ``probe_now_ms``: the median time of the speed probe then and now; None where
    models do not run on the CPU alone. ``remedy``: how to profile again.
    """

    number: int
    target: str
    holdout: HoldoutReport
    architectures: tuple[str, ...]
    measured_ms: tuple[float, ...]
    predicted_ms: tuple[float, ...]
    found: ErrorMetrics
    drift_corrected: ErrorMetrics
    slower: float
    tolerance: float
    reference_then_ms: float | None
    reference_now_ms: float | None
    probe_then_ms: float | None
    probe_now_ms: float | None
    validity_counts: dict[str, int]
    device_s: float
    synthetic: bool
    remedy: str

    def __repr__(self) -> str:
        result = "agrees" if self.agrees else "disagrees"
        return f"TableCheck({self.number} of {self.target}, {result}, MAPE {self.found.mape:.1%})"

    @property
    def agrees(self) -> bool:
        """True when the errors are those of the holdout report, apart from drift within the tolerance."""
        return self.found.agrees_with_holdout or (
            self.drift_corrected.agrees_with_holdout and abs(self.slower) <= self.tolerance
        )

    @property
    def conclusion(self) -> str:
        """The result on one line, with what to do."""
        errors = f"MAPE is {self.found.mape:.1%}, {self.holdout.mape:.1%} in the holdout report"
        if self.found.agrees_with_holdout:
            return f"agrees: {errors}"
        if not self.drift_corrected.agrees_with_holdout:
            return f"disagrees: {errors}, and the device's speed does not explain the difference; profile again"
        changed = f"{abs(self.slower):.1%} {'slower' if self.slower > 0 else 'faster'}"
        corrected = f"corrected for that, MAPE is {self.drift_corrected.mape:.1%}"
        if self.agrees:
            return (
                f"agrees: {errors}; the device is {changed} than when it was profiled, within its drift then"
                f" (up to {self.tolerance:.1%}); {corrected}"
            )
        return (
            f"disagrees: the device is {changed} than when it was profiled, and its drift then was up to"
            f" {self.tolerance:.1%}; {corrected}; cool the device, end other programs, restore its power mode,"
            " or profile again"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the check as plain data."""
        described = asdict(self)
        del described["remedy"]
        return {"agrees": self.agrees, "conclusion": self.conclusion, **described}


@dataclass(frozen=True)
class _CheckPlan:
    """The subnets that a check will measure, for the table with this SHA-256; begun at this time."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    table_sha256: str
    begun_s: float
    architectures: tuple[str, ...]


def check_table(workspace: Workspace, target: Target, subnets: int) -> TableCheck:
    """Measure fresh random subnets and compare them with the table, as ``Run.check_table`` describes.

    The subnets are written down before the first is measured, so that an
    interrupted check resumes with them. Each check has a number and a file of
    its own. Subnets that the device cannot run are named and skipped.
    """
    if not _FEWEST <= subnets <= _MOST:
        raise UsageError(f"subnets must be from {_FEWEST} to {_MOST}, but got {subnets}")
    folder, table = workspace.folder, workspace.table(target)
    if table.holdout is None:
        raise UsageError(
            f"the table of {target.name} is published ({table.source}), not measured here: there is nothing to check"
        )
    if not table.inputs_digest:
        raise UsageError(
            f"the table of {target.name} is of an earlier edgenas, which scaled latencies to one speed of the CPU; run"
            f" edgenas profile --run {folder.root} --device {target.cli_name} first: it uses what is recorded"
        )
    check_present(target.profile)
    with folder.writing():
        number = 1 + max(folder.check_numbers(target.name), default=0)
        plan, files = _plan_check(workspace, target, table, number, subnets)
        log = workspace.measurement_log(target)
        with MeasurementStore(log, target, _SETTINGS, since_s=plan.begun_s) as store:
            measured = _measure_subnets(workspace, target, store, plan, files)
            check = _compare(workspace, target, table, number, measured, store)
        TABLE_CHECK.write(folder.check(target.name, number), check.to_dict())
        folder.check_plan(target.name, number).unlink(missing_ok=True)
    return check


def _plan_check(
    workspace: Workspace, target: Target, table: LatencyTable, number: int, subnets: int
) -> tuple[_CheckPlan, dict[str, bytes]]:
    """Return the plan of this check, written down now if it was not, and the files made for it."""
    path = workspace.folder.check_plan(target.name, number)
    current = sha256_hex(read_bytes(workspace.folder.table(target.name)))
    if path.exists():
        plan = parse_dataclass(_CheckPlan, dict(TABLE_CHECK_PLAN.read(path)), str(path))
        if plan.table_sha256 == current and len(plan.architectures) == subnets:
            return plan, {}
    files = _draw_fresh_subnets(workspace, target, table, number, subnets)
    plan = _CheckPlan(current, time.time(), tuple(files))
    TABLE_CHECK_PLAN.write(path, asdict(plan))
    return plan, files


def _draw_fresh_subnets(
    workspace: Workspace, target: Target, table: LatencyTable, number: int, subnets: int
) -> dict[str, bytes]:
    """Return files of uniformly random subnets that were never measured, by id."""
    export_format, log = format_of(target), workspace.measurement_log(target)
    stores = [MeasurementStore(log, target, settings) for settings in (SETTINGS, _SETTINGS)]
    random = np.random.default_rng([number, int(sha256_hex(target.name.encode())[:8], 16)])
    seen = set() if table.fitted_genes is None else {tuple(row) for row in table.fitted_genes.tolist()}
    chosen: dict[str, bytes] = {}
    for _ in range(_MOST_DRAWS):
        for architecture in workspace.space.decode(workspace.space.sample(_DRAWS, random)):
            if architecture.genes in seen:
                continue
            seen.add(architecture.genes)
            file = write_random_file(architecture, export_format)
            if not any(store.has_measured(file) for store in stores):
                chosen[architecture.id] = file
            if len(chosen) == subnets:
                return chosen
    raise RunError(
        f"{workspace.folder.root}: a check of {target.name} needs {subnets} subnets that were never measured, and"
        f" {len(chosen)} were found in a space of {workspace.space.size}; check fewer"
    )


def _measure_subnets(
    workspace: Workspace, target: Target, store: MeasurementStore, plan: _CheckPlan, files: Mapping[str, bytes]
) -> dict[str, list[Measurement]]:
    """Return the measurements of each subnet that the device can run, by id; make the files that are missing."""
    names, export_format, done = plan.architectures, format_of(target), 0

    def show(measurement: Measurement) -> None:
        nonlocal done
        done += 1
        bar(min(done, processes))

    processes = _SETTINGS.processes * len(names)
    with workspace.progress.step("check", processes) as bar:
        models = [files.get(each) or write_random_file(workspace.space.from_id(each), export_format) for each in names]
        tried = dict(zip(names, store.measure(models, show), strict=True))
        bar(processes)
    report_failed_subnets(
        workspace, "check", {name: each for name, each in tried.items() if isinstance(each, ModelError)}, len(tried)
    )
    taken = {name: each.measurements for name, each in tried.items() if isinstance(each, MeasurementResult)}
    assessed = iter(store.with_drift([one for each in taken.values() for one in each]))
    measured = {name: [next(assessed) for _ in each] for name, each in taken.items()}
    rejected = [one for each in measured.values() for one in each if one.is_rejected]
    if rejected:
        reason = "; ".join(rejected[0].validity.reasons)
        workspace.progress.say(f"check     {len(rejected)} measurements are rejected: {reason}")
    return measured


def _compare(
    workspace: Workspace,
    target: Target,
    table: LatencyTable,
    number: int,
    measurements: Mapping[str, Sequence[Measurement]],
    store: MeasurementStore,
) -> TableCheck:
    holdout = table.holdout
    process = table.process
    assert holdout is not None  # check_table has looked
    assert process is not None  # a holdout report is of measured subnets
    genes = workspace.space.encode([workspace.space.from_id(text) for text in measurements])
    taken = [one for each in measurements.values() for one in each]
    measured = np.array([np.median([one.median_ms for one in each]) for each in measurements.values()])
    taken_at = [Moments.of(each) for each in measurements.values()]
    moments = Moments(*(np.array([getattr(one, name).mean() for one in taken_at]) for name in ("at_s", "probe_ms")))
    drift = process.estimate_drift_leave_one_out(part_count_matrix(workspace.space, genes), measured, moments)
    references = store.reference_measurements()
    return TableCheck(
        number=number,
        target=target.name,
        holdout=holdout,
        architectures=tuple(measurements),
        measured_ms=tuple(measured.tolist()),
        predicted_ms=tuple(table.latency_ms(genes).tolist()),
        found=compute_error_metrics(table, genes, measured, number),
        drift_corrected=compute_error_metrics(table, genes, measured / np.exp(drift), number, drift_corrected=True),
        slower=math.expm1(float(np.median(drift))),
        tolerance=_drift_tolerance(table, process, genes),
        reference_then_ms=holdout.reference_ms,
        reference_now_ms=store.reference_ms if len(references) >= _REFERENCES else None,
        probe_then_ms=holdout.probe_ms,
        probe_now_ms=median_probe_ms(taken),
        validity_counts=count_validity(taken),
        device_s=float(sum(measurement.device_s for measurement in taken)),
        synthetic=any(measurement.synthetic for measurement in taken),
        remedy=_remedy(workspace, target),
    )


def _drift_tolerance(table: LatencyTable, process: PartProcess, genes: Genes) -> float:
    """Return the common error of genes (N, G) at one moment that 95% of checks stay below, as a fraction.

    It comes from drift, the table's own uncertainty and noise; at most a tenth,
    from where on measurements are rejected for drift.
    """
    predicted = table.latency_ms(genes)
    shared = process.drift_std(predicted) ** 2 + (table.latency_std_ms(genes) / predicted) ** 2
    return min(MAX_DRIFT, TWO_SIDED_95 * math.sqrt(float(np.median(shared)) + process.noise_std**2 / len(genes)))


def _remedy(workspace: Workspace, target: Target) -> str:
    """Return how to make a new table: old measurements must be moved away, because recorded ones are never repeated."""
    layout = workspace.folder
    old: list[Path] = [layout.measurements(target.name), layout.table(target.name)]
    return (
        f"move {' and '.join(map(str, old))} away and profile again:"
        f" edgenas profile --run {layout.root} --device {target.cli_name}"
    )
