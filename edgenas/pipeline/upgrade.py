"""Upgrading a run folder of version 1, which had one file for each measurement, to today's layout."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenas.errors import EdgeNASError, FormatError
from edgenas.files import digest, read_bytes, read_document, write_bytes, write_document
from edgenas.pipeline.measurement_log import log_bytes
from edgenas.pipeline.run_folder import RunFolder
from edgenas.profilers import LatencyTable, Measurement
from edgenas.runtimes import all_formats
from edgenas.search import Front
from edgenas.space import SearchSpace, space_from_dict

Say = Callable[[str], None]

_KIND, _VERSION = "run", 2
# The key of run.json that stands there during an upgrade, with the step that is next.
_NEXT = "upgrade"
_CONVERT, _REMOVE = "convert", "remove"

_HOLDOUT_KEYS = {
    "certificate": "holdout",
    "levelled": "drift_corrected",
    "pace_ms": "probe_ms",
    "verdicts": "validity_counts",
    "trusted": "valid",
    "refused": "rejected",
}


@dataclass(frozen=True, eq=False)
class _Schema:
    """One kind of document: its version before and after, new names of keys at any depth, and what makes it again."""

    kind: str
    old_version: int
    version: int
    keys: Mapping[str, str]
    again: str


_EVALUATED = _Schema("evaluated", 1, 1, {"made_from": "inputs_digest"}, "edgenas evaluate")
_TABLE = _Schema(
    "latency_table",
    6,
    7,
    {
        **_HOLDOUT_KEYS,
        "made_from": "inputs_digest",
        "inferred": "posterior",
        "strengths": "variances",
        "lean": "transfer_weight",
    },
    "edgenas profile (from its measurements; edgenas import if it is published)",
)
_PLAN = _Schema("profile_plan", 1, 1, {"made_from": "inputs_digest"}, "edgenas profile")
_CHECK = _Schema(
    "table_check",
    3,
    3,
    {
        **_HOLDOUT_KEYS,
        "verdict": "conclusion",
        "usual": "tolerance",
        "pace_then_ms": "probe_then_ms",
        "pace_now_ms": "probe_now_ms",
    },
    "edgenas profile --check",
)
_CHECK_PLAN = _Schema("table_check_plan", 2, 2, {}, "edgenas profile --check")
_FRONT = _Schema("front", 1, 1, {"made_from": "inputs_digest"}, "edgenas search")
_CHOICE = _Schema("choice", 1, 1, {"made_from": "inputs_digest", "verdict": "validity"}, "edgenas choose")

# Without these, a device or the trained supernet would have to run again.
_NEEDED = (_EVALUATED, _TABLE, _PLAN)
_LOAD: dict[_Schema, Callable[[Path, SearchSpace], object]] = {_TABLE: LatencyTable.load, _FRONT: Front.load}


def upgrade_run(folder: RunFolder, say: Say) -> None:
    """Upgrade a run of version 1; do nothing to one of today's layout.

    All files are first written to their new places, then run.json gets the new
    version, and only then the old files are removed. A killed upgrade goes on
    when the run is opened again, and comes to the same bytes.

    Args:
        folder: A folder with a run.json.
        say: Is given a line of text for the upgrade, and for each file that is left out.

    Raises:
        FormatError: A file that cannot be made again without a device is damaged; nothing is changed then.
        RunError: Another process is writing the run.
        EdgeNASError: The folder cannot be written.
    """
    if _NEXT not in _read_run(folder):
        return
    with folder.writing():
        body = _read_run(folder)  # another process may have upgraded it meanwhile
        step, run = body.get(_NEXT), {key: value for key, value in body.items() if key != _NEXT}
        try:
            if step == _CONVERT:
                _convert(folder, space_from_dict(run["space"], str(folder.run)), say)
                write_document(folder.run, _KIND, _VERSION, {**run, _NEXT: _REMOVE})
            if step is not None:
                _remove_old(folder)
                write_document(folder.run, _KIND, _VERSION, run)
        except OSError as error:
            raise EdgeNASError(
                f"{folder.root}: cannot be upgraded ({error.strerror}); make it writable and run the command again"
            ) from None


def _read_run(folder: RunFolder) -> dict[str, Any]:
    return read_document(folder.run, _KIND, _VERSION, {1: lambda body: {**body, _NEXT: _CONVERT}})


def _convert(folder: RunFolder, space: SearchSpace, say: Say) -> None:
    """Write everything to its new place; the old files stay."""
    count, logs = 0, 0
    for old in _measurement_folders(folder):
        records = _read_measurements(old)
        if records:
            write_bytes(folder.measurements(old.name), log_bytes(records))
            count, logs = count + len(records), logs + 1
    for old, new, schema in _documents(folder):
        try:
            _convert_document(folder, old, new, schema)
        except EdgeNASError as error:
            if schema in _NEEDED:
                raise
            say(f"upgrade   leaves out {old}: {error}; {schema.again} makes it again")
            continue
        try:
            if schema in _LOAD:
                _LOAD[schema](new, space)
        except EdgeNASError as error:
            new.unlink()
            say(f"upgrade   leaves out {old}: this edgenas cannot use it ({error}); {schema.again} makes it again")
    for old, new in _pictures(folder):
        write_bytes(new, read_bytes(old))
    say(
        f"upgrade   {folder.root}: to the layout of this edgenas, {count} measurements in {logs}"
        f" log{'s' * (logs != 1)}; nothing needs to be measured again"
    )


def _convert_document(folder: RunFolder, old: Path, new: Path, schema: _Schema) -> None:
    body = _with_keys(dict(read_document(old, schema.kind, schema.old_version)), schema.keys)
    if schema is _CHOICE:
        validity = body["measured"]["validity"]
        for status, word in (("trusted", "valid"), ("refused", "rejected")):
            validity = re.sub(rf"^{status}\b", word, validity)
        body["measured"]["validity"] = validity
    if schema is _CHECK_PLAN:
        # The plan of a check belongs to the bytes of its table, and those have changed: tables are converted first.
        target = new.parents[1].name
        if body["table_sha256"] == digest(read_bytes(_old_table(folder, target))):
            body["table_sha256"] = digest(read_bytes(folder.table(target)))
    write_document(new, schema.kind, schema.version, body)


def _with_keys(value: Any, names: Mapping[str, str]) -> Any:
    """Return plain data with keys renamed at any depth."""
    if isinstance(value, dict):
        return {names.get(key, key): _with_keys(part, names) for key, part in value.items()}
    return [_with_keys(part, names) for part in value] if isinstance(value, list) else value


def _read_measurements(folder: Path) -> list[tuple[str, dict[str, Any], bool]]:
    """Read the files of a target, by time, as records of ``log_bytes``; those of one model keep their order."""
    latest: defaultdict[str, float] = defaultdict(float)
    rows = []
    for path, series, is_reference, sequence, number in sorted(_measurement_files(folder), key=lambda row: row[2:]):
        try:
            measurement = Measurement.load(path)
        except EdgeNASError as error:
            raise FormatError(f"{error}; if others of {folder} are like it, move that folder away") from None
        latest[sequence] = max(latest[sequence], measurement.taken_s)
        rows.append((latest[sequence], sequence, number, (series, measurement.to_dict(), is_reference)))
    return [row[3] for row in sorted(rows, key=lambda row: row[:3])]


def _measurement_files(folder: Path) -> Iterator[tuple[Path, str, bool, str, int]]:
    """Yield the path of each measurement, its series, True for the reference model, its model's name, its number."""
    for path in folder.glob("*.json"):
        if match := re.fullmatch(r"([0-9a-f]{24}-([0-9a-f]{8}))-(\d+)\.json", path.name):
            yield path, match[2], False, match[1], int(match[3])
    for path in folder.glob("reference/*.json"):
        if match := re.fullmatch(r"([0-9a-f]{8})-(\d+)\.json", path.name):
            yield path, match[1], True, match[1], int(match[2])


def _measurement_folders(folder: RunFolder) -> list[Path]:
    return sorted(path for path in folder.root.glob("measurements/*") if path.is_dir())


def _documents(folder: RunFolder) -> Iterator[tuple[Path, Path, _Schema]]:
    """Yield the old and the new path of each document with its schema, tables before the plans of their checks."""
    evaluated = folder.root / "accuracy" / "evaluated.json"
    if evaluated.exists():
        yield evaluated, folder.evaluated, _EVALUATED
    later = []
    for path in sorted(folder.root.glob("tables/*.json")):
        if match := re.fullmatch(r"(.+)\.check-(\d+)\.plan\.json", path.name):
            later.append((path, folder.check_plan(match[1], int(match[2])), _CHECK_PLAN))
        elif match := re.fullmatch(r"(.+)\.check-(\d+)\.json", path.name):
            yield path, folder.check(match[1], int(match[2])), _CHECK
        elif match := re.fullmatch(r"(.+)\.plan\.json", path.name):
            yield path, folder.plan(match[1]), _PLAN
        else:
            yield path, folder.table(path.stem), _TABLE
    yield from later
    for path in sorted(folder.root.glob("fronts/*.json")):
        yield path, folder.front(path.stem), _FRONT
    for path in sorted(folder.root.glob("choices/*/*.json")):
        yield path, folder.choice(path.parent.name, path.stem), _CHOICE


def _old_table(folder: RunFolder, target: str) -> Path:
    return folder.root / "tables" / f"{target}.json"


def _pictures(folder: RunFolder) -> Iterator[tuple[Path, Path]]:
    for path in sorted(folder.root.glob("fronts/*.png")):
        yield path, folder.picture(path.stem)


def _remove_old(folder: RunFolder) -> None:
    """Move the targets' bundles, and remove the old files and folders; what is no part of a run stays."""
    formats = set(map(str, all_formats()))
    for old in sorted(path for path in folder.root.glob("bundles/*/*") if path.parent.name not in formats):
        new = folder.bundle(old.parent.name, old.name)
        if not new.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            old.rename(new)
    for measurements in _measurement_folders(folder):
        for path, *_ in _measurement_files(measurements):
            path.unlink()
    for path in [*(old for old, _, _ in _documents(folder)), *(old for old, _ in _pictures(folder))]:
        path.unlink()
    for name in ("measurements", "tables", "fronts", "choices", "bundles"):
        inner = sorted((folder.root / name).rglob("*"), reverse=True)
        for path in [*(path for path in inner if path.is_dir()), folder.root / name]:
            with suppress(OSError):  # not empty, or not there
                path.rmdir()
