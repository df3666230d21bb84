"""The step that compares a latency table with fresh subnets."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgenas.costs import Vector
from edgenas.devices import Target, check_present
from edgenas.errors import FormatError, ModelError, RunError, UsageError
from edgenas.files import Amount, ShortText, read_bytes, sha256_hex
from edgenas.pipeline.documents import TABLE_CHECK, TABLE_CHECK_PLAN
from edgenas.pipeline.export_formats import format_of
from edgenas.pipeline.measurement_store import MeasurementStore
from edgenas.pipeline.profile import SETTINGS, report_failed_subnets
from edgenas.pipeline.workspace import Workspace
from edgenas.profilers import LatencyTable, Measurement, MeasurementResult
from edgenas.profilers.latency.holdout import TWO_SIDED_95, HoldoutReport, MeasuredSubnets
from edgenas.profilers.measure.statistics import median_ratio_with_interval
from edgenas.runtimes.building import write_random_file
from edgenas.shell import format_command

# One process of each would make a table look worse than it is while other programs run.
_SETTINGS = replace(SETTINGS, processes=3, max_processes=3)
_ANCHORS = 10  # subnets of the table that are measured again
_FEWEST, _MOST = 10, 1000  # fresh subnets
_PERMUTATIONS = 10_000
_SIGNIFICANCE_LEVEL = 0.05
_MAX_TOLERANCE = 0.1
_UNSHOWN = 5e-4  # a change that would be printed as 0.0%
_DRAWS = 64  # subnets at a time; most of the first such draw are fresh
_MOST_DRAWS = 200


@dataclass(frozen=True)
class TableCheck:
    """A table's holdout report beside the same report of fresh random subnets, and the device's speed then and now.

    The speed is compared by anchors: subnets that the table was fitted to, measured again in the same rounds as the
    fresh ones.

    Attributes:
        number: The number of this check of the table.
        target: The name of the target.
        then: The holdout report of the table.
        now: The report of the fresh subnets.
        architectures: The ids of the fresh subnets.
        device_s: The device time of all processes of the check, seconds.
        p_value: The probability of a mean absolute error this much above that of the holdout report, if both
            samples are from one distribution.
        corrected_mape: The mean absolute error of the fresh subnets without the change of the device's speed.
        corrected_p_value: ``p_value`` for that.
        anchors: The ids of the anchors.
        anchors_then_ms: Their latencies when the table was made.
        anchors_now_ms: Their latencies now.
        remedy: How to profile again.
    """

    number: int
    target: str
    then: HoldoutReport
    now: HoldoutReport
    architectures: tuple[str, ...]
    device_s: float
    p_value: float
    corrected_mape: float
    corrected_p_value: float
    anchors: tuple[str, ...]
    anchors_then_ms: tuple[float, ...]
    anchors_now_ms: tuple[float, ...]
    remedy: str

    def __repr__(self) -> str:
        result = "agrees" if self.agrees else "disagrees"
        return f"TableCheck({self.number} of {self.target}, {result}, MAPE {self.now.mape:.1%})"

    @cached_property
    def slower_with_interval(self) -> tuple[float, float, float]:
        """How much slower the device is than when it was profiled, 0.03 for 3%, and the ends of the 95% interval."""
        pairs = list(zip(self.anchors_now_ms, self.anchors_then_ms, strict=True))
        ratio, low, high = median_ratio_with_interval(pairs)
        return ratio - 1, low - 1, high - 1

    @property
    def tolerance(self) -> float:
        """The change of speed that is drift as in profiling: 95% of moments then were within it; at most a tenth."""
        return min(_MAX_TOLERANCE, TWO_SIDED_95 * self.then.drift)

    @property
    def agrees(self) -> bool:
        """True when the errors are those of the holdout report, apart from a change of speed within the tolerance."""
        if self.p_value >= _SIGNIFICANCE_LEVEL:
            return True
        return self.corrected_p_value >= _SIGNIFICANCE_LEVEL and abs(self.slower_with_interval[0]) <= self.tolerance

    @property
    def conclusion(self) -> str:
        """The result on one line, with what to do."""
        slower, low, high = self.slower_with_interval
        errors = f"MAPE is {self.now.mape:.1%}, {self.then.mape:.1%} in the holdout report"
        comparison = f"{abs(slower):.1%} {'slower' if slower > 0 else 'faster'} than"
        change = comparison if abs(slower) > _UNSHOWN else "as fast as"
        speed = (
            f"the device is {change} when it was profiled"
            f" (by {len(self.anchors)} subnets measured then and now; 95% interval {low:+.1%} to {high:+.1%})"
        )
        corrected = f"corrected for that, MAPE is {self.corrected_mape:.1%}"
        if self.p_value >= _SIGNIFICANCE_LEVEL:
            return f"agrees: {errors}; {speed}"
        if self.corrected_p_value < _SIGNIFICANCE_LEVEL and high - low > 2 * _MAX_TOLERANCE:
            return f"disagrees: {errors}; {speed}, too unsteady to judge the table: end other programs, check again"
        if self.corrected_p_value < _SIGNIFICANCE_LEVEL:
            return f"disagrees: {errors}; {speed}, which does not explain the difference; profile again"
        if self.agrees:
            return f"agrees: {errors}; {speed}, within its drift then (up to {self.tolerance:.1%}); {corrected}"
        return (
            f"disagrees: {speed}, and its drift then was up to {self.tolerance:.1%}; {errors}; {corrected};"
            " cool the device, end other programs, restore its power mode, or profile again"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the check as plain data."""
        slower, *interval = self.slower_with_interval
        described = asdict(self)
        del described["remedy"]
        return {
            "agrees": self.agrees,
            "conclusion": self.conclusion,
            "slower": slower,
            "slower_interval_95": interval,
            "tolerance": self.tolerance,
            **described,
        }


@dataclass(frozen=True)
class _CheckPlan:
    """The fresh subnets and the anchors that a check will measure, for the table with this SHA-256."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    table_sha256: ShortText
    begun_s: Amount
    architectures: tuple[ShortText, ...]
    anchors: tuple[ShortText, ...]


def check_table(workspace: Workspace, target: Target, subnets: int) -> TableCheck:
    """Measure fresh random subnets and compare them with the table, as ``Run.check_table`` describes.

    The subnets are written down before the first is measured, so that an
    interrupted check resumes with them. Each check has a number and a file of
    its own. Subnets that the device cannot run are named and skipped.
    """
    if not _FEWEST <= subnets <= _MOST:
        raise UsageError(f"subnets must be from {_FEWEST} to {_MOST}, but got {subnets}")
    check_present(target.profile)
    with workspace.folder.writing():
        return _check_table(workspace, target, subnets)


def _check_table(workspace: Workspace, target: Target, subnets: int) -> TableCheck:
    folder, table = workspace.folder, workspace.table(target)
    if table.holdout is None:
        raise UsageError(
            f"the table of {target.name} is published ({table.source}), not measured here: there is nothing to check"
        )
    if not table.inputs_digest:
        raise UsageError(
            f"the table of {target.name} is of an earlier edgenas, which scaled latencies to one speed of the CPU;"
            " make it again, from what is recorded:"
            f" {format_command('profile', '--run', folder.root)} --device {target.cli_name}"
        )
    number = 1 + max(folder.check_numbers(target.name), default=0)
    plan, files = _plan_check(workspace, target, table, number, subnets)
    with MeasurementStore(workspace.measurement_log(target), target, _SETTINGS, since_s=plan.begun_s) as store:
        measured = _measure_subnets(workspace, target, store, plan, files)
    check = _compare(workspace, target, table, number, plan, measured)
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
        # A plan that is damaged, or of an earlier edgenas, is made anew: nothing is lost but a few measurements.
        with contextlib.suppress(FormatError):
            plan = TABLE_CHECK_PLAN.read_as(_CheckPlan, path)
            if plan.table_sha256 == current and len(plan.architectures) == subnets:
                return plan, {}
    files = _draw_fresh_subnets(workspace, target, table, number, subnets)
    plan = _CheckPlan(current, time.time(), tuple(files), _select_anchors(workspace, table))
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


def _select_anchors(workspace: Workspace, table: LatencyTable) -> tuple[str, ...]:
    """Return ids of subnets that the table was fitted to, evenly over the time of profiling."""
    assert table.fitted_genes is not None  # check_table has looked
    rows = np.unique(np.linspace(0, len(table.fitted_genes) - 1, _ANCHORS).round().astype(int))
    return tuple(each.id for each in workspace.space.decode(table.fitted_genes[rows]))


def _measure_subnets(
    workspace: Workspace, target: Target, store: MeasurementStore, plan: _CheckPlan, files: Mapping[str, bytes]
) -> dict[str, MeasurementResult]:
    """Return the measurements of each subnet that the device can run, by id; make the files that are missing."""
    names, export_format, done = (*plan.architectures, *plan.anchors), format_of(target), 0

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
    measured = {name: each for name, each in tried.items() if isinstance(each, MeasurementResult)}
    rejected = [each for each in measured.values() if each.rejection_reasons]
    if rejected:
        reason = "; ".join(rejected[0].rejection_reasons)
        workspace.progress.say(f"check     {len(rejected)} of {len(measured)} subnets are rejected: {reason}")
    return measured


def _compare(
    workspace: Workspace,
    target: Target,
    table: LatencyTable,
    number: int,
    plan: _CheckPlan,
    measured: Mapping[str, MeasurementResult],
) -> TableCheck:
    space, then = workspace.space, table.holdout
    assert then is not None  # check_table has looked
    fresh, anchors = ([each for each in names if each in measured] for names in (plan.architectures, plan.anchors))
    if len(fresh) < 2 or len(anchors) < 2:
        raise RunError(f"{target.name}: cannot run enough of the subnets to check its table; see the lines above")
    subnets, again = (
        MeasuredSubnets.of(
            space.encode([space.from_id(each) for each in names]), [measured[each].measurements for each in names]
        )
        for names in (fresh, anchors)
    )
    now = table.evaluate(subnets, np.ones(len(subnets), dtype=np.bool_))
    then_ms = table.fitted_latencies_ms(again.genes)
    errors, known = np.array(now.errors), np.array(then.errors)
    corrected = (1 + errors) * float(np.median(again.latency_ms / then_ms)) - 1
    return TableCheck(
        number=number,
        target=target.name,
        then=then,
        now=now,
        architectures=tuple(fresh),
        device_s=sum(each.device_s for each in measured.values()),
        p_value=permutation_p_value(errors, known, number),
        corrected_mape=float(np.abs(corrected).mean()),
        corrected_p_value=permutation_p_value(corrected, known, number),
        anchors=tuple(anchors),
        anchors_then_ms=tuple(then_ms.tolist()),
        anchors_now_ms=tuple(again.latency_ms.tolist()),
        remedy=_remedy(workspace, target),
    )


def permutation_p_value(fresh: Vector, known: Vector, seed: int = 0) -> float:
    """Return the one-sided p-value of the hypothesis that fresh errors (N,) are no larger than known ones (M,).

    The statistic is the mean absolute error of the N. The value is the share, among 10,000 random divisions of all
    errors into N and M and the actual one, of divisions with an equal or larger statistic (R. A. Fisher, The
    Design of Experiments, 1935, section 21). The actual division counts, so the value is never 0.
    """
    pool = np.abs(np.concatenate([fresh, known]))
    orders = np.random.default_rng(seed).permuted(np.tile(pool, (_PERMUTATIONS, 1)), axis=1)
    # The mean of the N is enough: the sum of all is constant. Equal divisions may differ by rounding.
    as_large = orders[:, : len(fresh)].mean(axis=1) >= np.abs(fresh).mean() * (1 - 1e-9)
    return float((1 + as_large.sum()) / (1 + _PERMUTATIONS))


def _remedy(workspace: Workspace, target: Target) -> str:
    """Return how to make a new table: old measurements must be moved away, because recorded ones are never repeated."""
    layout = workspace.folder
    old: list[Path] = [layout.measurements(target.name), layout.table(target.name)]
    return (
        f"move {' and '.join(map(str, old))} away and profile again:"
        f" {format_command('profile', '--run', layout.root)} --device {target.cli_name}"
    )
