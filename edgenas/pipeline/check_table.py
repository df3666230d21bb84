"""The step that holds a latency table's certificate against fresh subnets."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgenas.costs import Genes
from edgenas.devices import Target, check_present
from edgenas.errors import ModelError, RunError, UsageError
from edgenas.files import digest, parse, read_bytes, read_document, write_document
from edgenas.on_device.speed_probe import is_same_speed
from edgenas.pipeline.export_formats import format_of
from edgenas.pipeline.measurement_store import MeasurementStore
from edgenas.pipeline.profile import SETTINGS, random_file, tell_failed
from edgenas.profilers import LatencyTable, Measurement, MeasurementResult
from edgenas.profilers.latency.agreement import Figures, figures
from edgenas.profilers.latency.fit import count_parts
from edgenas.profilers.latency.gaussian_process import PartProcess
from edgenas.profilers.latency.holdout import TWO_SIDED_95, HoldoutReport
from edgenas.profilers.measure.baseline_speed import at_baseline, common_baseline
from edgenas.profilers.measure.validity import MOST_DRIFT

if TYPE_CHECKING:
    from edgenas.pipeline.run import Run

_KIND, _VERSION = "table_check", 3
_PLAN, _PLAN_VERSION = "table_check_plan", 2
# So many processes of the reference model say how fast the device is now.
_REFERENCES = 5
# In a restless hour one process of each would make a table look worse than it is.
_SETTINGS = replace(SETTINGS, processes=3, max_processes=3)
_FEWEST, _MOST = 10, 1000
_DRAWS = 64  # subnets at a time; most of the first such draw are fresh
_MOST_DRAWS = 200


@dataclass(frozen=True)
class TableCheck:
    """A certificate beside what fresh random subnets say.

    ``measured_ms``, ``predicted_ms``: medians by ``architectures``.
    ``slower``: by how much the fresh subnets in common are slower than predicted,
    0.03 for 3%, and ``usual``: up to how much is usual there, at 95%, for they are
    measured within a minute and the device drifts. ``drift_corrected``: the figures with
    that taken out, beside those of the certificate of which that is true, too.
    ``reference_then_ms``, ``reference_now_ms``: what the reference model took
    while the table was made and now; None where it was not run often enough.
    ``probe_then_ms``, ``probe_now_ms``: the pace of the device's CPU that was usual
    then and is now; None where models do not run on that alone. ``remedy``: how
    to profile again.
    """

    number: int
    target: str
    holdout: HoldoutReport
    architectures: tuple[str, ...]
    measured_ms: tuple[float, ...]
    predicted_ms: tuple[float, ...]
    found: Figures
    drift_corrected: Figures
    slower: float
    usual: float
    reference_then_ms: float | None
    reference_now_ms: float | None
    probe_then_ms: float | None
    probe_now_ms: float | None
    validity_counts: dict[str, int]
    device_s: float
    synthetic: bool
    remedy: str

    @property
    def agrees(self) -> bool:
        """Whether the table predicts as its certificate says, but for a moment's speed that is usual there."""
        return self.found.agree or (self.drift_corrected.agree and self._is_usual)

    @property
    def _is_usual(self) -> bool:
        return abs(self.slower) <= self.usual

    @property
    def conclusion(self) -> str:
        """What the check says, on one line, with what to do."""
        errors = f"MAPE is {self.found.mape:.1%} where the certificate says {self.holdout.mape:.1%}"
        if self.found.agree:
            return f"agrees: {errors}"
        changed = f"{abs(self.slower):.1%} {'slower' if self.slower > 0 else 'faster'}"
        divided = f"with that divided away MAPE is {self.drift_corrected.mape:.1%}, which agrees"
        if not self.drift_corrected.agree:
            return f"disagrees: {errors}, which the device's speed does not explain; profile again"
        if self._is_usual:
            return (
                f"agrees: {errors}, but for the moment: the device is {changed}, and up to {self.usual:.1%} is usual,"
                f" as it drifted while it was profiled; {divided}"
            )
        return (
            f"disagrees: the device is {changed} than when it was profiled, where up to {self.usual:.1%} is usual;"
            f" {divided}; mend the device (cool it, end other programs, see its power mode) or profile again"
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        described = asdict(self)
        del described["remedy"]
        return {"agrees": self.agrees, "conclusion": self.conclusion, **described}


@dataclass(frozen=True)
class _Plan:
    """What a check will measure: ids of subnets, for the table with this SHA-256, from this time on."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    table_sha256: str
    begun_s: float
    architectures: tuple[str, ...]


def check_table(run: Run, target: Target, subnets: int = 20) -> TableCheck:
    """Measure ``subnets`` random ones that were never measured before, and compare them with the certificate.

    Which ones they are is written down before the first is measured, so a
    check that was interrupted goes on with them. Each check has a number and a
    file of its own. Subnets that the device cannot run are named and left out,
    as in profiling; where most fail, that is the error. Raises RunError where
    there is no table, and for a space of which too few are left, UsageError for a
    published one, and for a number of subnets that is not from 10 to 1000.
    """
    if not _FEWEST <= subnets <= _MOST:
        raise UsageError(f"subnets must be from {_FEWEST} to {_MOST}, but got {subnets}")
    table = run.table(target)
    if table.holdout is None:
        raise UsageError(
            f"the table of {target.name} is published ({table.source}), not measured here: there is nothing to check"
        )
    check_present(target.profile)
    with run.layout.writing():
        number = 1 + max(run.layout.check_numbers(target.name), default=0)
        plan, files = _planned(run, target, table, number, subnets)
        since_s = plan.begun_s
        log, say = run.layout.measurements(target.name), run.progress.say
        with MeasurementStore(log, target, _SETTINGS, since_s=since_s, say=say) as measurer:
            measured = _measure(run, target, measurer, plan, files)
            check = _compare(run, target, table, number, measured, measurer)
        write_document(run.layout.check(target.name, number), _KIND, _VERSION, check.to_dict())
        run.layout.check_plan(target.name, number).unlink(missing_ok=True)
    return check


def _planned(
    run: Run, target: Target, table: LatencyTable, number: int, subnets: int
) -> tuple[_Plan, dict[str, bytes]]:
    """What was planned for this check of this table, or else a new plan, written down, and the files made for it."""
    path, current = run.layout.check_plan(target.name, number), digest(read_bytes(run.layout.table(target.name)))
    if path.exists():
        plan = parse(_Plan, dict(read_document(path, _PLAN, _PLAN_VERSION)), str(path))
        if plan.table_sha256 == current and len(plan.architectures) == subnets:
            return plan, {}
    files = _fresh(run, target, table, number, subnets)
    plan = _Plan(current, time.time(), tuple(files))
    write_document(path, _PLAN, _PLAN_VERSION, asdict(plan))
    return plan, files


def _fresh(run: Run, target: Target, table: LatencyTable, number: int, subnets: int) -> dict[str, bytes]:
    """Uniformly random subnets of whose files no measurement is recorded, by id."""
    kind, folder = format_of(target), run.layout.measurements(target.name)
    measured = [MeasurementStore(folder, target, settings) for settings in (SETTINGS, _SETTINGS)]
    random = np.random.default_rng([number, int(digest(target.name.encode())[:8], 16)])
    seen = set() if table.measured is None else {tuple(row) for row in table.measured.tolist()}
    chosen: dict[str, bytes] = {}
    for _ in range(_MOST_DRAWS):
        for architecture in run.space.decode(run.space.sample(_DRAWS, random)):
            if architecture.genes in seen:
                continue
            seen.add(architecture.genes)
            file = random_file(architecture, kind)
            if not any(measurer.has_measured(file) for measurer in measured):
                chosen[architecture.id] = file
            if len(chosen) == subnets:
                return chosen
    raise RunError(
        f"{run.layout.root}: a check of {target.name} needs {subnets} subnets that were never measured, and"
        f" {len(chosen)} were found in a space of {run.space.size}; check fewer"
    )


def _measure(
    run: Run, target: Target, measurer: MeasurementStore, plan: _Plan, files: Mapping[str, bytes]
) -> dict[str, list[Measurement]]:
    """The measurements of each subnet that the device can run, by its id; ``files`` that are not there are made."""
    names, kind, done = plan.architectures, format_of(target), 0

    def show(measurement: Measurement) -> None:
        nonlocal done
        done += 1
        bar(min(done, processes))

    processes = _SETTINGS.processes * len(names)
    with run.progress.step("check", processes) as bar:
        models = [files.get(each) or random_file(run.space.from_id(each), kind) for each in names]
        tried = dict(zip(names, measurer.measure(models, show), strict=True))
        bar(processes)
    tell_failed(run, "check", {name: each for name, each in tried.items() if isinstance(each, ModelError)}, len(tried))
    taken = {name: each.measurements for name, each in tried.items() if isinstance(each, MeasurementResult)}
    corrected = iter(measurer.correct_drift([one for each in taken.values() for one in each]))
    measured = {name: [next(corrected) for _ in each] for name, each in taken.items()}
    refused = [one for each in measured.values() for one in each if one.rejected]
    if refused:
        reason = "; ".join(refused[0].validity.reasons)
        run.progress.say(f"check     {len(refused)} measurements are refused: {reason}")
    return measured


def _compare(
    run: Run,
    target: Target,
    table: LatencyTable,
    number: int,
    measurements: Mapping[str, Sequence[Measurement]],
    measurer: MeasurementStore,
) -> TableCheck:
    holdout = table.holdout
    process = table.process
    assert holdout is not None  # check_table has looked
    assert process is not None  # a certificate is of measured subnets
    genes = run.space.encode([run.space.from_id(text) for text in measurements])
    taken, then = [one for each in measurements.values() for one in each], holdout.probe_ms
    pace_now = common_baseline(taken)
    if then is not None and pace_now is not None and is_same_speed(pace_now, then):
        measurements = {name: [at_baseline(one, then) for one in each] for name, each in measurements.items()}
    measured = np.array([np.median([one.median_ms for one in each]) for each in measurements.values()])
    at_s = np.array([np.mean([one.taken_s for one in each]) for each in measurements.values()])
    drift = process.drift_among(count_parts(run.space, genes), measured, at_s)
    references = measurer.reference_measurements()
    statuses = [measurement.validity.status for measurement in taken]
    return TableCheck(
        number=number,
        target=target.name,
        holdout=holdout,
        architectures=tuple(measurements),
        measured_ms=tuple(measured.tolist()),
        predicted_ms=tuple(table.latency_ms(genes).tolist()),
        found=figures(table, genes, measured, number),
        drift_corrected=figures(table, genes, measured / np.exp(drift), number, drift_corrected=True),
        slower=math.expm1(float(np.median(drift))),
        usual=_usual(table, process, genes),
        reference_then_ms=holdout.reference_ms,
        reference_now_ms=measurer.reference_ms if len(references) >= _REFERENCES else None,
        probe_then_ms=then,
        probe_now_ms=pace_now,
        validity_counts={status: statuses.count(status) for status in sorted(set(statuses))},
        device_s=float(sum(measurement.device_s for measurement in taken)),
        synthetic=any(measurement.synthetic for measurement in taken),
        remedy=_remedy(run, target),
    )


def _usual(table: LatencyTable, process: PartProcess, genes: Genes) -> float:
    """Up to which share genes (N, G) in common are likely, at 95%, to be off at one moment.

    By drift, what the table does not know, and noise; at most the tenth from
    which on a device is another one.
    """
    predicted = table.latency_ms(genes)
    shared = process.drift(predicted) ** 2 + (table.spread_ms(genes) / predicted) ** 2
    return min(MOST_DRIFT, TWO_SIDED_95 * math.sqrt(float(np.median(shared)) + process.noise**2 / len(genes)))


def _remedy(run: Run, target: Target) -> str:
    """How to make a new table: what was measured for the old one has to go, for it is never measured again."""
    layout = run.layout
    old: list[Path] = [layout.measurements(target.name), layout.table(target.name)]
    return (
        f"move {' and '.join(map(str, old))} away and profile again:"
        f" edgenas profile --run {layout.root} --device {target.cli_name}"
    )
