"""The history of checks: JSON lines in a folder, safe to commit, one file for each check."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Interval

from edgenas.appending import append_at
from edgenas.errors import EdgeNASError, FormatError, UsageError
from edgenas.files import (
    Count,
    Milliseconds,
    ShortText,
    canonical_json_bytes,
    parse_dataclass,
    parse_header_version,
    parse_json,
    read_bytes,
    sha256_hex,
)
from edgenas.regression.checks import CheckReport
from edgenas.regression.picture import draw_line
from edgenas.units import format_change, format_ms

_KIND, _VERSION = "history", 1
_HEADER = canonical_json_bytes({"format": f"edgenas.{_KIND}", "version": _VERSION}) + b"\n"
_FEWEST = 3  # entries on each side of a change point
_SHOWN = 100  # of the latest checks, in a line of text
_PENALTY = 4.0  # of a change point, for each unit of the logarithm of the length
Ratio = Annotated[float, Interval(ge=1e-9, le=1e9)]


@dataclass(frozen=True)
class HistoryEntry:
    """One check, without anything of the machine that it was started on.

    Attributes:
        time: in UTC, as ``2026-11-30T01:20:00Z``.
        name: the check's name.
        outcome: its outcome.
        model_sha256: the model's; empty where nothing was measured.
        target: the name of the target.
        fingerprint: a digest of what the latency depends on besides the model; another one is another series.
        now_ms: the median latency of the new model; None where nothing was measured.
        then_ms: that of the baseline's model in the same rounds.
        ratio: the ratio of the two, the median over rounds.
        interval_95: its interval; None while unknown.
        rounds: the rounds that were measured.
        file_bytes: the size of the model file.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    time: ShortText
    name: ShortText
    outcome: ShortText
    model_sha256: ShortText
    target: ShortText
    fingerprint: ShortText
    now_ms: Milliseconds | None
    then_ms: Milliseconds | None
    ratio: Ratio | None
    interval_95: tuple[Ratio, Ratio] | None
    rounds: Count
    file_bytes: Count


def make_entry(report: CheckReport, now_s: float | None = None) -> HistoryEntry | None:
    """Return the history's entry for a check; None for one that failed."""
    check = report.check
    if check is None:
        return None
    then, now = check.costs_ms()
    relative = [one for one in check.findings if one.limit.quantity == "latency" and one.limit.is_relative]
    low, high = relative[0].interval if relative else (0.0, np.inf)
    return HistoryEntry(
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s)),
        name=report.request.label,
        outcome=check.outcome,
        model_sha256=check.rounds[0].new.model_sha256 if check.rounds else "",
        target=check.target,
        fingerprint=sha256_hex(canonical_json_bytes(dict(check.fingerprint)))[:12],
        now_ms=float(np.median(now)) if now else None,
        then_ms=float(np.median(then)) if then else None,
        ratio=relative[0].ratio if relative else None,
        interval_95=(low, high) if low > 0 and np.isfinite(high) else None,
        rounds=len(check.rounds),
        file_bytes=check.model.file_bytes,
    )


def append_history(folder: Path, reports: Iterable[CheckReport]) -> None:
    """Append checks to the files of a history, which need not exist yet; a last line that was cut off is replaced.

    Raises:
        EdgeNASError: a file cannot be written.
        FormatError: it is no history.
    """
    for report in reports:
        entry = make_entry(report)
        if entry is None:
            continue
        path = folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', entry.name).strip('-.') or 'check'}.jsonl"
        line = canonical_json_bytes(asdict(entry)) + b"\n"
        try:
            end = _complete_bytes(read_bytes(path), path) if path.exists() else 0
            append_at(path, end, line if end else _HEADER + line)
        except OSError as error:
            raise EdgeNASError(f"{path}: cannot be written ({error.strerror}); free space or choose another") from None


def read_history(folder: Path) -> dict[str, list[HistoryEntry]]:
    """Return the entries of each check by its name, in the order of time.

    Raises:
        UsageError: the folder holds no history.
        FormatError: a line is damaged; the message names it.
    """
    found: dict[str, list[HistoryEntry]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for entry in _read_file(path):
            found.setdefault(entry.name, []).append(entry)
    if not found:
        raise UsageError(f"{folder}: holds no history; give the folder of edgenas regress check --history")
    return {name: sorted(entries, key=lambda entry: entry.time) for name, entries in found.items()}


def find_change_points(values: Sequence[float]) -> list[int]:
    """Return the places, from 1 on, where the level of a series of latencies changes: the first entry of each new one.

    PELT (R. Killick, P. Fearnhead and I. Eckley, Optimal detection of changepoints with a linear computational cost,
    JASA 107 (2012) 1590) by ruptures, with the sum of absolute deviations from the median of each part as the cost,
    so that a single outlier is no change. The noise is that of the differences between neighbours.
    """
    import ruptures

    logs = np.log(np.asarray(values, dtype=np.float64))
    if len(logs) < 2 * _FEWEST:
        return []
    noise = max(float(np.median(np.abs(np.diff(logs)))) / 0.9539, 1e-3)  # of a normal variable's differences
    pelt = ruptures.Pelt(model="l1", min_size=_FEWEST, jump=1).fit(logs[:, None] / noise)
    places: list[int] = pelt.predict(pen=_PENALTY * float(np.log(len(logs))))[:-1]
    return places


@dataclass(frozen=True)
class Series:
    """The measured latencies of one check over time, and the places where their level changed."""

    name: str
    entries: tuple[HistoryEntry, ...]
    changes: tuple[int, ...]

    @property
    def values_ms(self) -> list[float]:
        """The median latencies, ms."""
        return [entry.now_ms for entry in self.entries if entry.now_ms is not None]

    def levels(self) -> list[tuple[int, int, float]]:
        """Return the first entry, the one after the last, and the median, ms, of each part between changes."""
        if not self.entries:
            return []
        ends = [0, *self.changes, len(self.entries)]
        return [(first, end, float(np.median(self.values_ms[first:end]))) for first, end in pairwise(ends)]

    def lines(self) -> list[str]:
        """Return it as text: the series as bars, then a line for each change."""
        levels, values = self.levels(), self.values_ms
        if not values:
            return [f"{self.name}: nothing was measured"]
        first, last = self.entries[0].time, self.entries[-1].time
        checks = f"{len(values)} check{'s' * (len(values) != 1)}"
        lines = [
            f"{self.name}: {checks} from {first} to {last}, {format_ms(min(values))} to {format_ms(max(values))}",
            f"  {draw_line(values[-_SHOWN:])}",
        ]
        for (_, _, before), (place, _, after) in pairwise(levels):
            entry = self.entries[place]
            lines.append(
                f"  from {entry.time} on, model {entry.model_sha256[:12]}: {format_ms(before)} became"
                f" {format_ms(after)} ({format_change(after / before)})"
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        levels = [
            {"from": self.entries[first].time, "model_sha256": self.entries[first].model_sha256, "median_ms": median}
            for first, _, median in self.levels()
        ]
        return {"name": self.name, "levels": levels, "checks": [asdict(entry) for entry in self.entries]}


def summarise_series(name: str, entries: Sequence[HistoryEntry]) -> Series:
    """Return the series of the entries in which something was measured."""
    measured = tuple(entry for entry in entries if entry.now_ms is not None)
    values = [entry.now_ms for entry in measured if entry.now_ms is not None]
    return Series(name, measured, tuple(find_change_points(values)))


def _read_file(path: Path) -> list[HistoryEntry]:
    data = read_bytes(path)
    lines = data[: _complete_bytes(data, path)].splitlines()[1:]
    entries = []
    for number, line in enumerate(lines, 2):
        where = f"{path}, line {number}"
        try:
            entries.append(parse_dataclass(HistoryEntry, parse_json(line, where), where))
        except (ValueError, RecursionError, UsageError) as error:
            problem = error if isinstance(error, UsageError) else f"{where}: is no JSON"
            raise FormatError(f"{problem}; remove that line") from None
    return entries


def _complete_bytes(data: bytes, path: Path) -> int:
    """Return the size of the complete lines of a history, 0 for a new file; FormatError where it is none."""
    end = data.rfind(b"\n") + 1
    if not end and _HEADER.startswith(data):
        return 0
    try:
        header: Any = json.loads(data.partition(b"\n")[0])
    except (ValueError, RecursionError):
        header = None
    parse_header_version(header if isinstance(header, dict) else {}, path, _KIND, _VERSION)
    return end
