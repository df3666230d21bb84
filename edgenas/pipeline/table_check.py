"""The step that holds a latency table's certificate against fresh subnets."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgenas.devices import Target, check_present
from edgenas.errors import ModelError, RunError, UsageError
from edgenas.files import digest, parse, read_bytes, read_document, write_document
from edgenas.pipeline.kinds import kind_of
from edgenas.pipeline.measurements import Measurer
from edgenas.pipeline.profile import SETTINGS, random_file, tell_failed
from edgenas.profilers import LatencyTable, Measurement
from edgenas.profilers.agreement import Figures, figures
from edgenas.profilers.certificate import Certificate
from edgenas.profilers.pace import common_pace
from edgenas.profilers.trust import MOST_DRIFT
from edgenas.units import format_ms

if TYPE_CHECKING:
    from edgenas.pipeline.run import Run

_KIND, _PLAN, _VERSION = "table_check", "table_check_plan", 2
# So many processes of the reference model say how fast the device is now.
_REFERENCES = 5
_FEWEST, _MOST = 10, 1000
_DRAWS = 64  # subnets at a time; most of the first such draw are fresh
_MOST_DRAWS = 200


@dataclass(frozen=True)
class TableCheck:
    """A certificate beside what fresh random subnets say.

    ``measured_ms``, ``predicted_ms``: medians by ``architectures``.
    ``reference_then_ms``, ``reference_now_ms``: what the reference model took
    while the table was made and now, in ``references`` processes; None where it
    was not run often enough. ``reference_noise``: two standard errors of the
    latter, as a share. ``pace_then_ms``, ``pace_now_ms``: the pace of the
    device's CPU that was usual then and is now; None where models do not run on
    that alone. ``adjusted``: the figures with the ratio of paces, or else that of
    the reference model, divided away; None where it is not known to within a
    tenth. ``remedy``: how to profile again.
    """

    number: int
    target: str
    certificate: Certificate
    architectures: tuple[str, ...]
    measured_ms: tuple[float, ...]
    predicted_ms: tuple[float, ...]
    found: Figures
    reference_then_ms: float | None
    reference_now_ms: float | None
    references: int
    reference_noise: float | None
    pace_then_ms: float | None
    pace_now_ms: float | None
    adjusted: Figures | None
    verdicts: dict[str, int]
    device_s: float
    synthetic: bool
    remedy: str

    @property
    def agrees(self) -> bool:
        """Whether the table predicts as its certificate says."""
        return self.found.agree

    @property
    def slower(self) -> float | None:
        """How much slower the device is than while the table was made, 0.03 for 3%; None where nobody knows."""
        then, now = self._speeds
        return None if self.adjusted is None or then is None or now is None else now / then - 1

    @property
    def _speeds(self) -> tuple[float | None, float | None]:
        """What tells how fast the device was then and is now, ms."""
        if self.pace_then_ms is not None and self.pace_now_ms is not None:
            return self.pace_then_ms, self.pace_now_ms
        return self.reference_then_ms, self.reference_now_ms

    @property
    def verdict(self) -> str:
        """What the check says, on one line, with what to do."""
        errors = f"MAPE is {self.found.mape:.1%} where the certificate says {self.certificate.mape:.1%}"
        if self.agrees:
            return f"agrees: {errors}"
        if self.adjusted is None or self.slower is None:
            return f"disagrees: {errors}, and whether the device changed is not known ({self._unknown}); profile again"
        ran = self._ran
        if not self.adjusted.agree:
            return f"disagrees: {errors}, which the device's speed does not explain ({ran}); profile again"
        changed = f"{abs(self.slower):.0%} {'slower' if self.slower > 0 else 'faster'}"
        return (
            f"disagrees: the device is {changed} than when it was profiled ({ran});"
            f" with that divided away MAPE is {self.adjusted.mape:.1%}, which agrees;"
            " mend the device (cool it, end other programs, see its power mode) or profile again"
        )

    @property
    def _ran(self) -> str:
        """What tells how fast the device was then and is now, in words."""
        then, now = (each or 0.0 for each in self._speeds)
        if self.pace_then_ms is not None and self.pace_now_ms is not None:
            return f"a fixed piece of work took its CPU {1000 * then:.2f} us then, {1000 * now:.2f} us now"
        return f"its reference model ran {format_ms(then)} then, {format_ms(now)} now"

    @property
    def _unknown(self) -> str:
        """Why nobody knows how fast the device is."""
        if self.reference_then_ms is None or self.reference_now_ms is None:
            return "no reference model was run"
        return f"its reference model varied, known to {self.reference_noise or 0:.0%} only: end other programs there"

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        described = asdict(self)
        del described["remedy"]
        return {"agrees": self.agrees, "verdict": self.verdict, "slower": self.slower, **described}


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
    if table.certificate is None:
        raise UsageError(
            f"the table of {target.name} is published ({table.source}), not measured here: there is nothing to check"
        )
    check_present(target.profile)
    with run.layout.writing():
        number = 1 + max(_numbers(run, target), default=0)
        plan, files = _planned(run, target, table, number, subnets)
        since_s = plan.begun_s
        with Measurer(run.layout.measurements(target.name), target, SETTINGS, since_s=since_s) as measurer:
            measured = _measure(run, target, measurer, plan, files)
            check = _compare(run, target, table, number, measured, measurer)
        write_document(run.layout.check(target.name, number), _KIND, _VERSION, check.to_dict())
        run.layout.check_plan(target.name, number).unlink(missing_ok=True)
    return check


def _numbers(run: Run, target: Target) -> Iterator[int]:
    """The numbers of the checks that were done."""
    pattern = re.compile(re.escape(target.name) + r"\.check-(\d+)\.json")
    for path in run.layout.table(target.name).parent.iterdir():
        if match := pattern.fullmatch(path.name):
            yield int(match.group(1))


def _planned(
    run: Run, target: Target, table: LatencyTable, number: int, subnets: int
) -> tuple[_Plan, dict[str, bytes]]:
    """What was planned for this check of this table, or else a new plan, written down, and the files made for it."""
    path, current = run.layout.check_plan(target.name, number), digest(read_bytes(run.layout.table(target.name)))
    if path.exists():
        plan = parse(_Plan, dict(read_document(path, _PLAN, _VERSION)), str(path))
        if plan.table_sha256 == current and len(plan.architectures) == subnets:
            return plan, {}
    with Measurer(run.layout.measurements(target.name), target, SETTINGS) as measurer:
        files = _fresh(run, target, table, number, subnets, measurer)
    plan = _Plan(current, time.time(), tuple(files))
    write_document(path, _PLAN, _VERSION, asdict(plan))
    return plan, files


def _fresh(
    run: Run, target: Target, table: LatencyTable, number: int, subnets: int, measurer: Measurer
) -> dict[str, bytes]:
    """Uniformly random subnets of whose files no measurement is recorded, by id."""
    kind = kind_of(target)
    random = np.random.default_rng([number, int(digest(target.name.encode())[:8], 16)])
    seen = set() if table.measured is None else {tuple(row) for row in table.measured.tolist()}
    chosen: dict[str, bytes] = {}
    for _ in range(_MOST_DRAWS):
        for architecture in run.space.decode(run.space.sample(_DRAWS, random)):
            if architecture.genes in seen:
                continue
            seen.add(architecture.genes)
            file = random_file(architecture, kind)
            if not measurer.has(file):
                chosen[architecture.id] = file
            if len(chosen) == subnets:
                return chosen
    raise RunError(
        f"{run.layout.root}: a check of {target.name} needs {subnets} subnets that were never measured, and"
        f" {len(chosen)} were found in a space of {run.space.size}; check fewer"
    )


def _measure(
    run: Run, target: Target, measurer: Measurer, plan: _Plan, files: Mapping[str, bytes]
) -> dict[str, Measurement]:
    """One measurement of each subnet that the device can run, by its id.

    ``files`` that are not there are made. In turns so short that the reference model runs often enough between them.
    """
    names, kind = plan.architectures, kind_of(target)
    size = len(names) // _REFERENCES
    tried: list[Measurement | ModelError] = []
    with run.progress.step("check", len(names)) as bar:
        for first in range(0, len(names), size):
            due = names[first : first + size]
            tried += measurer.tried([files.get(each) or random_file(run.space.from_id(each), kind) for each in due])
            bar(len(tried))
    found = dict(zip(plan.architectures, tried, strict=True))
    tell_failed(run, "check", {name: each for name, each in found.items() if isinstance(each, ModelError)}, len(found))
    taken = {name: each for name, each in found.items() if isinstance(each, Measurement)}
    measured = dict(zip(taken, measurer.corrected(list(taken.values())), strict=True))
    refused = [each for each in measured.values() if each.refused]
    if refused:
        reason = "; ".join(refused[0].verdict.reasons)
        run.progress.say(f"check     {len(refused)} of {len(measured)} are refused: {reason}")
    return measured


def _compare(
    run: Run,
    target: Target,
    table: LatencyTable,
    number: int,
    measurements: Mapping[str, Measurement],
    measurer: Measurer,
) -> TableCheck:
    certificate = table.certificate
    assert certificate is not None  # check_table has looked
    genes = run.space.encode([run.space.from_id(text) for text in measurements])
    taken = list(measurements.values())
    measured = np.array([measurement.median_ms for measurement in taken])
    medians = [each.unscaled_ms for each in measurer.reference_processes()]
    now = measurer.reference_ms if len(medians) >= _REFERENCES else None
    then, noise = certificate.reference_ms, None if now is None else _noise(medians, now)
    pace_then, pace_now = certificate.pace_ms, common_pace(taken)
    ratio = None
    if pace_then is not None and pace_now is not None:
        ratio = pace_now / pace_then
    elif now is not None and then is not None and noise is not None and noise <= MOST_DRIFT:
        ratio = now / then
    statuses = [measurement.verdict.status for measurement in taken]
    return TableCheck(
        number=number,
        target=target.name,
        certificate=certificate,
        architectures=tuple(measurements),
        measured_ms=tuple(measured.tolist()),
        predicted_ms=tuple(table.latency_ms(genes).tolist()),
        found=figures(table, genes, measured, number),
        reference_then_ms=then,
        reference_now_ms=now,
        references=len(medians),
        reference_noise=noise,
        pace_then_ms=pace_then,
        pace_now_ms=pace_now,
        adjusted=None if ratio is None else figures(table, genes, measured / ratio, number),
        verdicts={status: statuses.count(status) for status in sorted(set(statuses))},
        device_s=float(sum(measurement.device_s for measurement in taken)),
        synthetic=any(measurement.synthetic for measurement in taken),
        remedy=_remedy(run, target),
    )


def _noise(medians_ms: list[float], middle_ms: float) -> float:
    """Two standard errors of the median of processes' medians, as a share of it."""
    deviation = 1.4826 * float(np.median(np.abs(np.array(medians_ms) / middle_ms - 1)))
    return 2 * math.sqrt(math.pi / 2 / len(medians_ms)) * deviation


def _remedy(run: Run, target: Target) -> str:
    """How to make a new table: what was measured for the old one has to go, for it is never measured again."""
    layout = run.layout
    old: list[Path] = [layout.measurements(target.name), layout.table(target.name)]
    return (
        f"move {' and '.join(map(str, old))} away and profile again:"
        f" edgenas profile --run {layout.root} --device {target.given}"
    )
