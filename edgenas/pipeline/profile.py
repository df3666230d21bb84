"""The step that chooses subnets, measures them on a target and fits its latency table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgenas.costs import Genes, Vector
from edgenas.devices import Target, check_present
from edgenas.errors import ModelError, UsageError
from edgenas.files import digest_of_inputs, sha256_hex
from edgenas.pipeline.export_formats import format_of
from edgenas.pipeline.measurement_store import MeasurementStore
from edgenas.pipeline.profile_plan import PlannedBatch, ProfilePlan
from edgenas.pipeline.progress import Bar
from edgenas.pipeline.source_tables import load_source_table
from edgenas.pipeline.table_samples import TableSamples
from edgenas.pipeline.workspace import Workspace
from edgenas.profilers import LatencyTable, Measurement, MeasureSettings
from edgenas.profilers.latency.acquisition import sample_unmeasured, select_subnets
from edgenas.profilers.latency.holdout import HoldoutReport, mape_upper_bound
from edgenas.runtimes.building import write_random_file
from edgenas.units import format_ms

# Many subnets measured briefly teach a table more than few measured long.
SETTINGS = MeasureSettings(
    relative_half_width=0.01, processes=1, max_processes=1, min_seconds=0.2, max_seconds=0.25, warmup_seconds=0.05
)
# Subnets in a batch and at least in all; fewer where the table starts from other targets' tables.
_BATCH, _LEAST = 20, 40
_BATCH_WITH_SOURCES, _LEAST_WITH_SOURCES = 10, 10
_HELD_OUT_SHARE = 5  # one subnet of so many
_RANDOM_BATCHES = 2  # before the table chooses what to measure
_LEAST_HELD_OUT = 20  # for a target error
_MOST = 4000  # more subnets teach nothing
_MOST_MINUTES = 1440


@dataclass(frozen=True)
class Goal:
    """The end of profiling: device time used and enough subnets measured, or the error small enough."""

    device_s: float
    subnets: int
    error: float | None

    def is_met_by(self, holdout: HoldoutReport) -> bool:
        """Return True when a table with this holdout report is what was asked for."""
        count = holdout.fitted + holdout.held_out
        return self.is_spent(holdout.device_s, count) or self.is_precise(np.array(holdout.errors))

    def is_spent(self, device_s: float, subnets: int) -> bool:
        """Return True when the device time is used and enough subnets were measured."""
        return subnets >= _MOST or (subnets >= self.subnets and device_s >= self.device_s)

    def is_precise(self, errors: Vector) -> bool:
        """Return True when the errors of the held-out subnets bound the mean error of all."""
        return self.error is not None and len(errors) >= _LEAST_HELD_OUT and mape_upper_bound(errors) <= self.error

    def progress_s(self, device_s: float, subnets: int) -> float:
        """Return how much of the goal is reached, in seconds of device time."""
        return self.device_s * min(1.0, device_s / self.device_s, subnets / self.subnets)


def profile(
    workspace: Workspace,
    target: Target,
    minutes: float,
    target_error: float | None,
    source_tables: Sequence[str | Path | LatencyTable],
) -> LatencyTable:
    """Measure subnets on a target and fit its latency table, as ``Run.profile`` describes."""
    check_present(target.profile)
    folder, space = workspace.folder, workspace.space
    goal = _make_goal(minutes, target_error, bool(source_tables))
    if space.size < goal.subnets:
        raise UsageError(f"a latency table needs at least {goal.subnets} networks, but the space has {space.size}")
    sources = [load_source_table(workspace, target, source) for source in source_tables]
    plan_digest = digest_of_inputs(space.short_hash, target.to_dict(), SETTINGS.to_dict())
    costs = [[source.overhead_ms, source.source_costs_for(space).part_ms.tolist()] for source in sources]
    inputs_digest = digest_of_inputs(plan_digest, costs)
    path = folder.table(target.name)
    with folder.writing():
        if path.exists():
            table = LatencyTable.load(path, space)
            if table.inputs_digest == inputs_digest and table.holdout is not None and goal.is_met_by(table.holdout):
                count, minutes = table.holdout.fitted + table.holdout.held_out, table.holdout.device_s / 60
                used = f"{count} subnets in {minutes:.1f} minutes of device time"
                workspace.progress.say(f"profile   already done ({target.name}, {used})")
                return table
        table = _Profiling(workspace, target, goal, sources, plan_digest, inputs_digest).make_table()
        table.save(path)
    return table


def _make_goal(minutes: float, target_error: float | None, with_sources: bool) -> Goal:
    if not 0 < minutes <= _MOST_MINUTES:
        raise UsageError(f"minutes must be above 0 and at most {_MOST_MINUTES}, but got {minutes:g}")
    if target_error is not None and not 0 < target_error < 1:
        raise UsageError(f"target_error must be above 0 and below 1 (0.03 is 3%), but got {target_error:g}")
    return Goal(minutes * 60, _LEAST_WITH_SOURCES if with_sources else _LEAST, target_error)


class _Profiling:
    """One call of the step: it takes in the batches that were planned earlier, then plans and measures new ones."""

    def __init__(
        self,
        workspace: Workspace,
        target: Target,
        goal: Goal,
        sources: Sequence[LatencyTable],
        plan_digest: str,
        inputs_digest: str,
    ) -> None:
        self._workspace, self._target, self._goal = workspace, target, goal
        self._path = workspace.folder.plan(target.name)
        self._plan = ProfilePlan.load(self._path, plan_digest)
        self._batch_size = _BATCH_WITH_SOURCES if sources else _BATCH
        self._random_batches = 1 if sources else _RANDOM_BATCHES
        self._store = MeasurementStore(workspace.measurement_log(target), target, SETTINGS)
        self._samples = TableSamples(workspace.space, target.name, inputs_digest, sources)

    def make_table(self) -> LatencyTable:
        """Measure until the goal is met, then fit the table."""
        with self._store, self._workspace.progress.step("profile", self._goal.device_s) as bar:
            number = 0
            while not self._is_goal_met() and (planned := self._plan_batch(number)):
                self._add(*self._measure_batch(number, *planned, bar))
                bar(self._progress_s(), self._describe_progress())
                number += 1
            self._add_recorded_batches(number)
            return self._samples.table()

    def _is_goal_met(self) -> bool:
        samples, goal = self._samples, self._goal
        if goal.is_spent(samples.device_s, len(samples)):
            return True
        if goal.error is None or not len(samples) or not goal.is_precise(samples.holdout_errors()):
            return False
        # The fit of all subnets decides; the errors above are of a fit that is extended from batch to batch.
        holdout = samples.table().holdout
        return holdout is not None and goal.is_met_by(holdout)

    def _plan_batch(self, number: int) -> tuple[PlannedBatch, dict[str, bytes]] | None:
        """Return a batch, planned and written down now if it was not, with the files made for it; None for no more."""
        if number < len(self._plan.batches):
            return self._plan.batches[number], {}
        genes, held_out = self._select_batch(number)
        if not len(genes):
            return None
        files = {
            architecture.id: self._make_file(architecture.id) for architecture in self._workspace.space.decode(genes)
        }
        models = tuple(sha256_hex(file) for file in files.values())
        batch = PlannedBatch(tuple(files), models, tuple(held_out.tolist()))
        self._plan = self._plan.with_batch(number, batch, self._path)
        return batch, files

    def _select_batch(self, number: int) -> tuple[Genes, npt.NDArray[np.bool_]]:
        """Return the subnets (N, G) of a new batch in the order of measuring, and a mask (N,) of the held-out ones."""
        space, samples = self._workspace.space, self._samples
        rng_selected, rng_held_out, rng_order = (np.random.default_rng([stream, number]) for stream in range(3))
        failed = space.encode([space.from_id(name) for name in self._plan.failed])
        used = np.vstack([samples.genes, failed])
        held_out = sample_unmeasured(space, used, self._batch_size // _HELD_OUT_SHARE, rng_held_out)
        process = samples.process() if number >= self._random_batches else None
        count = self._batch_size - len(held_out)
        selected = select_subnets(space, process, np.vstack([used, held_out]), count, rng_selected)
        order = rng_order.permutation(len(selected) + len(held_out))
        return np.vstack([selected, held_out])[order], order >= len(selected)

    def _measure_batch(
        self, number: int, batch: PlannedBatch, files: Mapping[str, bytes], bar: Bar
    ) -> tuple[PlannedBatch, list[Measurement]]:
        """Return a batch without the subnets that the device cannot run, and its measurements.

        Recorded subnets are not measured again, and their files not made.
        """
        recorded = [self._store.first_accepted(model) for model in batch.models]
        missing = [name for name, one in zip(batch.architectures, recorded, strict=True) if one is None]
        before_s, note, running_s = self._progress_s(), self._describe_progress(), 0.0

        def show(measurement: Measurement) -> None:
            nonlocal running_s
            running_s += measurement.device_s
            reached_s = min(before_s + running_s, self._goal.device_s)
            bar(reached_s, f"{note}  {format_ms(measurement.median_ms)} {measurement.validity.status}")

        results = self._store.measure_first([files.get(name) or self._make_file(name) for name in missing], show)
        failed = {name: one for name, one in zip(missing, results, strict=True) if isinstance(one, ModelError)}
        if failed:
            report_failed_subnets(self._workspace, "profile", failed, len(batch.architectures))
            batch = batch.without(failed)
            self._plan = self._plan.with_batch(number, batch, self._path)
        fresh = iter(results)
        measured = [one or next(fresh) for one in recorded]
        return batch, [one for one in measured if isinstance(one, Measurement)]

    def _make_file(self, name: str) -> bytes:
        return write_random_file(self._workspace.space.from_id(name), format_of(self._target))

    def _add(self, batch: PlannedBatch, measurements: Sequence[Measurement]) -> None:
        """Add a batch to the samples; tell the user when some of the first batch are rejected."""
        space = self._workspace.space
        genes = space.encode([space.from_id(name) for name in batch.architectures])
        self._samples.add(genes, batch.held_out, measurements)
        rejected = self._samples.rejected
        if len(self._samples) == len(measurements) and rejected:
            reason = "; ".join(rejected[0].validity.reasons)
            self._workspace.progress.say(
                f"profile   {len(rejected)} of the first {len(measurements)} measurements are rejected: {reason}"
            )

    def _add_recorded_batches(self, number: int) -> None:
        """Add further batches that an earlier call measured completely, for more time than is asked for now."""
        count = len(self._samples)
        for batch in self._plan.batches[number:]:
            recorded = [one for model in batch.models if (one := self._store.first_accepted(model))]
            if len(recorded) < len(batch.models):
                break
            self._add(batch, recorded)
        if len(self._samples) > count:
            self._workspace.progress.say(f"profile   uses all {len(self._samples)} subnets that are recorded")

    def _progress_s(self) -> float:
        return self._goal.progress_s(self._samples.device_s, len(self._samples))

    def _describe_progress(self) -> str:
        samples = self._samples
        if samples.held_out.sum() < 2:
            return "first subnets"
        return f"{len(samples)} subnets, held-out error {np.abs(samples.holdout_errors()).mean():.1%}"


def report_failed_subnets(workspace: Workspace, step: str, failed: Mapping[str, ModelError], count: int) -> None:
    """Name the subnets that the device cannot run; raise the first one's error where they are most of ``count``."""
    if 2 * len(failed) > count:
        raise next(iter(failed.values()))
    for name, error in failed.items():
        workspace.progress.say(f"{step:<9} skips {name}: {str(error).partition(': ')[2]}")
