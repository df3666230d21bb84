"""The step that chooses subnets, measures them on a target and fits its latency table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgenas.costs import Genes, Vector
from edgenas.devices import Target
from edgenas.errors import ModelError, UsageError
from edgenas.export import ExportFormat, build_onnx, random_weights
from edgenas.export.quantize.calibration import Calibration
from edgenas.files import digest
from edgenas.pipeline.export_formats import build_file, format_of
from edgenas.pipeline.inputs import digest_of_inputs
from edgenas.pipeline.measurement_store import MeasurementStore
from edgenas.pipeline.profile_plan import Plan, Planned
from edgenas.pipeline.progress import Bar
from edgenas.pipeline.source_tables import other_table
from edgenas.pipeline.table_samples import Samples
from edgenas.profilers import LatencyTable, Measurement, MeasureSettings
from edgenas.profilers.latency.acquisition import random_subnets, select_subnets
from edgenas.profilers.latency.holdout import HoldoutReport, mape_at_most
from edgenas.space import Architecture
from edgenas.units import format_ms

if TYPE_CHECKING:
    from edgenas.pipeline.run import Run

# Many subnets measured briefly teach a table more than few measured long.
SETTINGS = MeasureSettings(
    relative_half_width=0.01, processes=1, max_processes=1, min_seconds=0.2, max_seconds=0.25, warmup_seconds=0.05
)
# Subnets in a batch and at least in all, and with tables of other targets.
_BATCH, _LEAST = 20, 40
_BATCH_WITH_OTHERS, _LEAST_WITH_OTHERS = 10, 10
_JUDGES = 5  # one of so many is held out
_SPREAD_BATCHES = 2
_LEAST_JUDGES = 20  # for a target error
_MOST = 4000  # more subnets teach nothing
_MOST_MINUTES = 1440


@dataclass(frozen=True)
class Goal:
    """When a table is done: device time used up and enough measured, or the error small enough."""

    device_s: float
    subnets: int
    error: float | None

    def met(self, holdout: HoldoutReport) -> bool:
        """Whether a table with this certificate is what was asked for."""
        count = holdout.fitted + holdout.held_out
        return self.spent(holdout.device_s, count) or self.precise(np.array(holdout.errors))

    def spent(self, device_s: float, subnets: int) -> bool:
        """Whether enough was measured for the time that may be used."""
        return subnets >= _MOST or (subnets >= self.subnets and device_s >= self.device_s)

    def precise(self, errors: Vector) -> bool:
        """Whether the errors of the held-out subnets say that that of all is small enough."""
        return self.error is not None and len(errors) >= _LEAST_JUDGES and mape_at_most(errors) <= self.error

    def share(self, device_s: float, subnets: int) -> float:
        """How much of it is done, in seconds of device time."""
        return self.device_s * min(1.0, device_s / self.device_s, subnets / self.subnets)


def profile(
    run: Run,
    target: Target,
    minutes: float = 10.0,
    target_error: float | None = None,
    others: Sequence[str | Path | LatencyTable] = (),
) -> LatencyTable:
    """The table of ``target`` from subnets with random weights (latency does not depend on their values).

    Goes on until ``minutes`` of device time are measured, at least 40 subnets
    (10 with ``others``: tables of other targets of the space, their names in
    this run or their files), or until the 95% interval of the error on at least
    20 held-out subnets ends at ``target_error`` or below. Of each batch four
    fifths are chosen by what the table knows least, one fifth are uniformly
    random and judge it. What is measured is planned and recorded: after a kill
    or with more minutes it goes on, and nothing is measured twice. Raises
    UsageError for values that cannot be, DeviceError when the device vanishes.
    """
    goal = _goal(minutes, target_error, bool(others))
    if run.space.size < goal.subnets:
        raise UsageError(f"a latency table needs at least {goal.subnets} networks, but the space has {run.space.size}")
    tables = [other_table(run, target, other) for other in others]
    planned_from = digest_of_inputs(run.space.short_hash, target.to_dict(), SETTINGS.to_dict())
    costs = [[each.overhead_ms, each.costs_for(run.space).part_ms.tolist()] for each in tables]
    current = digest_of_inputs(planned_from, costs)
    path = run.layout.table(target.name)
    with run.layout.writing():
        if path.exists():
            table = LatencyTable.load(path, run.space)
            if table.inputs_digest == current and table.holdout is not None and goal.met(table.holdout):
                run.progress.say(f"profile   already done ({target.name}, {_used(table.holdout)})")
                return table
        table = _Profiling(run, target, goal, tables, planned_from, current).table()
        table.save(path)
    return table


def _goal(minutes: float, target_error: float | None, with_others: bool) -> Goal:
    if not 0 < minutes <= _MOST_MINUTES:
        raise UsageError(f"minutes must be above 0 and at most {_MOST_MINUTES}, but got {minutes:g}")
    if target_error is not None and not 0 < target_error < 1:
        raise UsageError(f"target_error must be above 0 and below 1 (0.03 is 3%), but got {target_error:g}")
    return Goal(minutes * 60, _LEAST_WITH_OTHERS if with_others else _LEAST, target_error)


def _used(holdout: HoldoutReport) -> str:
    count = holdout.fitted + holdout.held_out
    return f"{count} subnets in {holdout.device_s / 60:.1f} minutes of device time"


class _Profiling:
    """One call of the step: the batches that were planned earlier, then new ones."""

    def __init__(
        self, run: Run, target: Target, goal: Goal, others: Sequence[LatencyTable], planned_from: str, current: str
    ) -> None:
        self._run, self._target, self._goal, self._current = run, target, goal, current
        self._path = run.layout.plan(target.name)
        self._plan = Plan.load(self._path, planned_from)
        self._size = _BATCH_WITH_OTHERS if others else _BATCH
        self._spread = 1 if others else _SPREAD_BATCHES
        log = run.layout.measurements(target.name)
        self._measurer = MeasurementStore(log, target, SETTINGS, say=run.progress.say)
        self._samples = Samples(run.space, self._measurer, others)

    def table(self) -> LatencyTable:
        """Measure until the goal is met, and fit what was measured."""
        with self._measurer, self._run.progress.step("profile", self._goal.device_s) as bar:
            number = 0
            while not self._met() and (due := self._due(number)):
                self._take(*self._measured(number, *due, bar))
                bar(self._done(), self._note())
                number += 1
            self._take_the_rest(number)
            return self._samples.table(self._target.name, self._current)

    def _met(self) -> bool:
        samples, goal = self._samples, self._goal
        if goal.spent(samples.device_s, len(samples)):
            return True
        if goal.error is None or not len(samples) or not goal.precise(samples.errors()):
            return False
        holdout = samples.table(self._target.name, self._current).holdout  # what the whole fit says of it
        return holdout is not None and goal.met(holdout)

    def _due(self, number: int) -> tuple[Planned, dict[str, bytes]] | None:
        """A batch, and the files of its subnets where it was planned just now; None where the space has no more."""
        if number < len(self._plan.batches):
            return self._plan.batches[number], {}
        genes, held_out = self._chosen(number)
        if not len(genes):
            return None
        files = {each.id: self._file(each.id) for each in self._run.space.decode(genes)}
        models = tuple(digest(file) for file in files.values())
        batch = Planned(tuple(files), models, tuple(held_out.tolist()))
        self._plan = self._plan.with_batch(number, batch, self._path)
        return batch, files

    def _chosen(self, number: int) -> tuple[Genes, npt.NDArray[np.bool_]]:
        """The subnets (N, G) of a new batch and which of them are held out (N,), in the order of measuring."""
        space, samples = self._run.space, self._samples
        chosen, judging, mixed = (np.random.default_rng([which, number]) for which in range(3))
        failed = space.encode([space.from_id(each) for each in self._plan.failed])
        taken = np.vstack([samples.genes, failed])
        judges = random_subnets(space, taken, self._size // _JUDGES, judging)
        known = samples.process() if number >= self._spread else None
        others = select_subnets(space, known, np.vstack([taken, judges]), self._size - len(judges), chosen)
        order = mixed.permutation(len(others) + len(judges))
        return np.vstack([others, judges])[order], order >= len(others)

    def _measured(
        self, number: int, batch: Planned, files: Mapping[str, bytes], bar: Bar
    ) -> tuple[Planned, list[Measurement]]:
        """A batch without what the device cannot run, and its measurements.

        Those that are recorded are not taken again, and their files not made.
        """
        known = [self._measurer.first_accepted(model) for model in batch.models]
        missing = [name for name, one in zip(batch.architectures, known, strict=True) if one is None]
        before, note, running = self._done(), self._note(), 0.0

        def show(measurement: Measurement) -> None:
            nonlocal running
            running += measurement.device_s
            now = min(before + running, self._goal.device_s)
            bar(now, f"{note}  {format_ms(measurement.median_ms)} {measurement.validity.status}")

        fresh = self._measurer.measure_first([files.get(name) or self._file(name) for name in missing], show)
        failed = {name: one for name, one in zip(missing, fresh, strict=True) if isinstance(one, ModelError)}
        if failed:
            batch = self._without(number, batch, failed)
        taken = iter(fresh)
        found = [one or next(taken) for one in known]
        return batch, [one for one in found if isinstance(one, Measurement)]

    def _without(self, number: int, batch: Planned, failed: Mapping[str, ModelError]) -> Planned:
        """The batch without these; raises the first one's error where most of the batch failed."""
        tell_failed(self._run, "profile", failed, len(batch.architectures))
        smaller = batch.without(failed)
        self._plan = self._plan.with_batch(number, smaller, self._path)
        return smaller

    def _file(self, name: str) -> bytes:
        return random_file(self._run.space.from_id(name), format_of(self._target))

    def _take(self, batch: Planned, measurements: Sequence[Measurement]) -> None:
        space = self._run.space
        genes = space.encode([space.from_id(each) for each in batch.architectures])
        self._samples.add(genes, batch.held_out, measurements)
        refused = self._samples.rejected
        if len(self._samples) == len(measurements) and refused:
            reason = "; ".join(refused[0].validity.reasons)
            self._run.progress.say(f"profile   {len(refused)} of the first {len(measurements)} are refused: {reason}")

    def _take_the_rest(self, number: int) -> None:
        """Use further batches that were measured for more time, as far as they are whole."""
        count = len(self._samples)
        for batch in self._plan.batches[number:]:
            known = [each for model in batch.models if (each := self._measurer.first_accepted(model))]
            if len(known) < len(batch.models):
                break
            self._take(batch, known)
        if len(self._samples) > count:
            self._run.progress.say(f"profile   uses all {len(self._samples)} subnets that are recorded")

    def _done(self) -> float:
        return self._goal.share(self._samples.device_s, len(self._samples))

    def _note(self) -> str:
        """How many subnets there are, and how well those that were not fitted are predicted."""
        samples = self._samples
        if samples.held_out.sum() < 2:
            return "first subnets"
        return f"{len(samples)} subnets, unseen ones to {np.abs(samples.errors()).mean():.1%}"


def tell_failed(run: Run, step: str, failed: Mapping[str, ModelError], count: int) -> None:
    """Name the subnets that the device cannot run; raises the first one's error where they are most of ``count``."""
    if 2 * len(failed) > count:
        raise next(iter(failed.values()))
    for name, error in failed.items():
        run.progress.say(f"{step:<9} leaves out {name}: {str(error).partition(': ')[2]}")


def random_file(architecture: Architecture, kind: ExportFormat) -> bytes:
    """A subnet with random weights, as the target runs it; latency depends on the values of neither these nor noise."""
    channels, size = next(iter(architecture.parts.values())).in_channels, architecture.resolution
    noise = np.random.default_rng(0).standard_normal((1, channels, size, size), np.float32)
    calibration = Calibration(noise, "minmax") if kind.precision == "int8" else None
    return build_file(build_onnx(architecture, random_weights(architecture)), kind, calibration)[0]
