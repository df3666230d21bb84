"""The history of checks: JSON lines in a folder, safe to commit, one file for each check."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
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
    opened_without_links,
    parse_dataclass,
    parse_header_version,
    parse_json,
    read_bytes,
    sha256_hex,
)
from edgenas.locks import take_lock
from edgenas.regression.checks import CheckReport, CheckRequest

_KIND, _VERSION = "history", 1
_HEADER = canonical_json_bytes({"format": f"edgenas.{_KIND}", "version": _VERSION}) + b"\n"
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


def history_path(folder: Path, name: str) -> Path:
    """Return the file of a check's history."""
    return folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-.') or 'check'}.jsonl"


def check_history(folder: Path, requests: Iterable[CheckRequest]) -> None:
    """Make the folder of a history, and raise UsageError where these checks could not be appended to it."""
    for request in requests:
        path = history_path(folder, request.label)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with opened_without_links(path, os.O_RDWR):
                _complete_bytes(read_bytes(path), path)
        except FileNotFoundError:  # it is made with its first line
            if not os.access(folder, os.W_OK):
                raise UsageError(f"{folder}: cannot be written; choose another folder") from None
        except OSError as error:
            raise UsageError(f"{path}: cannot be written ({error.strerror}); choose another folder") from None


def append_history(folder: Path, reports: Iterable[CheckReport]) -> None:
    """Append checks to the files of a history, which need not exist yet; a last line that was cut off is replaced.

    Each file is locked from reading to writing, so that checks that end at the same time all keep their lines.

    Raises:
        EdgeNASError: a file cannot be written.
        FormatError: it is no history.
    """
    for report in reports:
        entry = make_entry(report)
        if entry is None:
            continue
        path = history_path(folder, entry.name)
        line = canonical_json_bytes(asdict(entry)) + b"\n"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with opened_without_links(path, os.O_RDWR | os.O_CREAT) as descriptor:
                take_lock(descriptor, math.inf)
                end = _complete_bytes(read_bytes(path), path)
                append_at(path, end, line if end else _HEADER + line)
        except OSError as error:
            raise EdgeNASError(f"{path}: cannot be written ({error.strerror}); free space or choose another") from None


def read_history(folder: Path) -> list[HistoryEntry]:
    """Return the entries of all checks, in the order of time.

    Raises:
        UsageError: the folder holds no history.
        FormatError: a line is damaged; the message names it.
    """
    entries = [entry for path in sorted(folder.glob("*.jsonl")) for entry in _read_file(path)]
    if not entries:
        raise UsageError(f"{folder}: holds no history; give the folder of edgenas regress check --history")
    return sorted(entries, key=lambda entry: entry.time)


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
