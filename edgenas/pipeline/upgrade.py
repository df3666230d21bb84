"""Upgrading a run folder of version 1, which had one file for each measurement, to today's layout."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgenas.errors import EdgeNASError, FormatError
from edgenas.files import TEMPORARY_SUFFIX, Schema, read_bytes, sha256_hex, write_bytes
from edgenas.pipeline.documents import (
    CHOICE,
    EVALUATED,
    PROFILE_PLAN,
    RUN,
    TABLE_CHECK,
    TABLE_CHECK_PLAN,
    UPGRADE_STEP,
    read_space,
)
from edgenas.pipeline.inputs_digests import front_inputs_digest
from edgenas.pipeline.measurement_log import log_bytes
from edgenas.pipeline.run_folder import RunFolder
from edgenas.pipeline.run_folder_of_version_1 import OldDocument, OldRunFolder
from edgenas.profilers import LatencyTable, Measurement
from edgenas.profilers.latency.table import TABLE_SCHEMA
from edgenas.search import Front
from edgenas.search.pareto import FRONT_SCHEMA
from edgenas.space import SearchSpace

Say = Callable[[str], None]
_Record = tuple[str, dict[str, Any]]  # of log_bytes

_REMOVE = "remove"  # the last step: everything is at its new place, and old files are left
# Without these the trained supernet or a device would have to run again: they are never skipped.
_NEEDED = (EVALUATED, PROFILE_PLAN)
# The commands that make the others again.
_REPEATED_BY = {
    TABLE_SCHEMA: "edgenas profile",
    TABLE_CHECK: "edgenas profile --check",
    TABLE_CHECK_PLAN: "edgenas profile --check",
    FRONT_SCHEMA: "edgenas search",
    CHOICE: "edgenas choose",
}
_LOAD: dict[Schema, Callable[[Path, SearchSpace], object]] = {
    TABLE_SCHEMA: LatencyTable.load,
    FRONT_SCHEMA: Front.load,
}
# What reading a document raises when its checksum is right and its content is not.
_CONTENT_ERRORS = (EdgeNASError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
# The files that a conversion writes into the folder of a target.
_WRITTEN = (
    "measurements.jsonl",
    "latency_table.json",
    "profile_plan.json",
    "checks/*.json",
    "front.json",
    "front.png",
    "choices/*.json",
)
# The default of a front's seed, which is not recorded: a front made with another one counts as outdated.
_SEED = 0


def upgrade_run(folder: RunFolder, say: Say) -> None:
    """Upgrade a run of version 1; do nothing to one of today's layout.

    All files are converted in a temporary folder and moved to their new
    places, then run.json gets the new version, and only then the old files are
    removed. A killed upgrade is completed when the run is opened again, and
    ends with the same bytes.

    Args:
        folder: A folder with a run.json.
        say: Receives a line of text for the upgrade, and for each file that is skipped.

    Raises:
        FormatError: A measurement, a plan or the evaluated subnets are damaged; nothing is changed then.
        RunError: Another process is writing the run.
        EdgeNASError: The folder cannot be written.
    """
    if UPGRADE_STEP not in RUN.read(folder.run):
        return
    with folder.writing():
        body, space = RUN.read(folder.run), read_space(folder.run)
        if UPGRADE_STEP not in body:
            return  # another process has upgraded it meanwhile
        run = {key: value for key, value in body.items() if key != UPGRADE_STEP}
        try:
            if body[UPGRADE_STEP] != _REMOVE:
                _convert(folder, space, say)
                RUN.write(folder.run, {**run, UPGRADE_STEP: _REMOVE})
            _remove_old(folder, space)
            RUN.write(folder.run, run)
        except OSError as error:
            raise EdgeNASError(
                f"{folder.root}: cannot be upgraded ({error.strerror}); make it writable and run the command again"
            ) from None


def _convert(folder: RunFolder, space: SearchSpace, say: Say) -> None:
    """Write everything to its new place; the old files stay."""
    _remove_earlier_attempt(folder)
    with tempfile.TemporaryDirectory(prefix=".upgrade-", suffix=TEMPORARY_SUFFIX, dir=folder.root) as temporary:
        converted = RunFolder(Path(temporary))
        logs, measurements = _Conversion(folder, converted, space, say).convert()
        for path in sorted(path for path in converted.root.rglob("*") if path.is_file()):
            new = folder.root / path.relative_to(converted.root)
            new.parent.mkdir(parents=True, exist_ok=True)
            path.replace(new)
    say(
        f"upgrade   {folder.root}: to the layout of this edgenas, {measurements} measurements in {logs}"
        f" log{'s' * (logs != 1)}; no measurement is lost"
    )


def _remove_earlier_attempt(folder: RunFolder) -> None:
    """Remove what a killed conversion wrote: an old file may have been moved away since."""
    folder.evaluated.unlink(missing_ok=True)
    for pattern in _WRITTEN:
        for path in folder.targets.glob(f"*/{pattern}"):
            path.unlink()
    for path in [*folder.targets.glob("*/*"), *folder.targets.glob("*"), folder.targets]:
        with suppress(OSError):  # not empty, or it does not exist
            path.rmdir()


class _Conversion:
    """Converts the files of a run of version 1 and writes them to the same paths in another folder."""

    def __init__(self, folder: RunFolder, converted: RunFolder, space: SearchSpace, say: Say) -> None:
        self._folder, self._converted, self._space, self._say = folder, converted, space, say
        self._old = OldRunFolder(folder.root)
        self._measured: set[str] = set()  # the names of the targets that have measurements
        self._digests: dict[str, str] = {}  # from the SHA-256 of an old file to that of the converted one

    def convert(self) -> tuple[int, int]:
        """Convert everything; return the number of logs and of their measurements."""
        logs, measurements = 0, 0
        for path in self._old.measurement_folders():
            if records := self._read_measurements(path):
                write_bytes(self._converted.measurements(path.name), log_bytes(records))
                self._measured.add(path.name)
                logs, measurements = logs + 1, measurements + len(records)
        for document in self._old.documents(self._converted):
            self._convert_document(document)
        for old, new in self._old.pictures(self._converted):
            write_bytes(new, read_bytes(old))
        return logs, measurements

    def _read_measurements(self, folder: Path) -> list[_Record]:
        """Read the measurements of a target, sorted by time; those of one model keep their order."""
        latest: defaultdict[str, float] = defaultdict(float)
        rows = []
        # The reference model, which earlier versions ran between the others, serves nothing now.
        files = [file for file in self._old.measurement_files(folder) if not file.is_reference]
        for file in sorted(files, key=lambda file: (file.sequence, file.number)):
            try:
                measurement = Measurement.load(file.path)
            except EdgeNASError as error:
                raise FormatError(
                    f"{file.path}: {_reason(error, file.path)}; move it away and open the run again"
                    f" (if others of {folder} are like it, move that folder away)"
                ) from None
            latest[file.sequence] = max(latest[file.sequence], measurement.taken_s)
            record = (file.series, measurement.to_dict())
            rows.append((latest[file.sequence], file.sequence, file.number, record))
        return [row[3] for row in sorted(rows, key=lambda row: row[:3])]

    def _convert_document(self, document: OldDocument) -> None:
        old, new, schema = document.old, document.new, document.schema
        if schema in _NEEDED:
            schema.write(new, schema.read(old))
        else:
            try:
                body = self._renew_digest(document, schema.read(old))
            except _CONTENT_ERRORS as error:
                self._report_skipped(document, error)
                return
            schema.write(new, body)
            try:
                if schema in _LOAD:
                    _LOAD[schema](new, self._space)
            except _CONTENT_ERRORS as error:
                new.unlink()
                self._report_skipped(document, error)
                return
        self._digests[sha256_hex(read_bytes(old))] = sha256_hex(read_bytes(new))

    def _report_skipped(self, document: OldDocument, error: Exception) -> None:
        command = _REPEATED_BY[document.schema]
        if document.schema is TABLE_SCHEMA and document.target not in self._measured:
            command = "edgenas import --tables"
        reason = _reason(error, document.old, document.new)
        self._say(f"upgrade   skipped {document.old} ({reason}): kept in not_upgraded; repeat it with: {command}")

    def _renew_digest(self, document: OldDocument, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body with the digest that belongs to the converted files, if it was that of the old ones."""
        if document.schema is FRONT_SCHEMA:
            return {**body, "inputs_digest": self._renew_front_digest(document.target, body["inputs_digest"])}
        return body

    def _converted_digest(self, sha256: str) -> str:
        """Return the SHA-256 of a file after its conversion; the same for a file that is not converted."""
        return self._digests.get(sha256, sha256)

    def _renew_front_digest(self, target: str, inputs_digest: str) -> str:
        table = self._old.table(target)
        predictor = self._old.evaluated if self._old.evaluated.exists() else self._folder.released_predictor
        if not (table.exists() and predictor.exists()):
            return inputs_digest
        old_predictor, old_table = sha256_hex(read_bytes(predictor)), sha256_hex(read_bytes(table))
        if front_inputs_digest(old_predictor, old_table, _SEED) != inputs_digest:
            return inputs_digest  # the front is older than its inputs
        return front_inputs_digest(self._converted_digest(old_predictor), self._converted_digest(old_table), _SEED)


def _reason(error: Exception, *paths: Path) -> str:
    """Return an error's text without the paths it begins with and without a remedy."""
    if not isinstance(error, EdgeNASError):
        return "its content is damaged"
    text = str(error)
    for path in paths:
        text = text.removeprefix(f"{path}: ")
    return text.partition("; ")[0]


def _remove_old(folder: RunFolder, space: SearchSpace) -> None:
    """Move bundles to their targets and skipped files to not_upgraded, and remove the other old files."""
    old = OldRunFolder(folder.root)
    for path, new in old.bundles(folder, space):
        if not new.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            path.rename(new)
    for measurements in old.measurement_folders():
        for file in list(old.measurement_files(measurements)):
            file.path.unlink()
    converted = [(document.old, document.new) for document in old.documents(folder)]
    for path, new in [*converted, *old.pictures(folder)]:
        if new.exists():
            path.unlink()
        else:
            kept = folder.not_upgraded / path.relative_to(folder.root)
            kept.parent.mkdir(parents=True, exist_ok=True)
            path.rename(kept)
    old.remove_empty_folders()
