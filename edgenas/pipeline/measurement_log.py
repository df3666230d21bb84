"""The log of a target's measurements: JSON lines that are only ever appended, one for each process."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edgenas.appending import append_at
from edgenas.errors import EdgeNASError, FormatError, UsageError
from edgenas.files import (
    canonical_json_bytes,
    oldest_version,
    opened_without_links,
    parse_header_version,
    sha256_hex,
    write_bytes,
)
from edgenas.profilers import Measurement
from edgenas.profilers.measure.measurement import MEASUREMENT_SCHEMA

_KIND = "measurements"
_VERSION, _UPGRADES = MEASUREMENT_SCHEMA.version, MEASUREMENT_SCHEMA.upgrades  # of the measurements in it
# A line is {"sha256":"DIGITS",REST where DIGITS are those of {REST, which is canonical JSON.
_START, _DIGITS, _MIDDLE = b'{"sha256":"', 64, b'",'
_REMEDY = "remove that line; what it held is measured again when it is needed"


@dataclass(frozen=True)
class LogEntry:
    """One process, as a line of the log holds it.

    Attributes:
        series: The key of the target, connection and settings that it was measured with.
        model_sha256: The SHA-256 of the model file.
        content: Canonical JSON of the line in this version, without the checksum.
        where: File and line number, for messages.
    """

    series: str
    model_sha256: str
    content: bytes
    where: str

    @cached_property
    def measurement(self) -> Measurement:
        """The measurement, parsed when it is first asked for."""
        try:
            return Measurement.from_dict(json.loads(self.content)["measurement"])
        except EdgeNASError as error:
            raise FormatError(f"{self.where}: {error}; {_REMEDY}") from None


class MeasurementLog:
    """All measurements of one target in one file, which need not exist yet.

    The file is read and checked when it is first needed, and again when it was
    changed meanwhile. Only the holder of the run's lock may append.

    A last line that was cut off while it was written, by a kill for example,
    is ignored; the next append overwrites it. Measurements of an older version
    are upgraded when they are read; the next append writes them in this version.

    Args:
        path: The file.
        say: Receives a line of text, once, when the last line was cut off.
    """

    def __init__(self, path: Path, say: Callable[[str], None] = lambda text: None) -> None:
        self.path = path
        self._say = say
        self._has_said = False
        self._entries: list[LogEntry] = []
        self._index: dict[tuple[str, str], list[LogEntry]] = {}
        # Of the file as it was read: its version, and the size of its complete lines in bytes.
        self._version, self._end = _VERSION, 0
        self._state: tuple[int, int] | None = None  # of the file when it was read; None before

    @property
    def entries(self) -> list[LogEntry]:
        """All lines, in the order of writing.

        Raises:
            FormatError: A line is damaged, or the file is of another kind, of a newer edgenas, or of a version that
                cannot be upgraded.
            UsageError: The file is a link or no regular file, or cannot be read.
        """
        state = _file_state(self.path)
        if state != self._state:
            self._state = None
            self._read()
            self._state = state
        return self._entries

    def of_model(self, series: str, model_sha256: str) -> list[Measurement]:
        """Return the processes of a model in a series, in the order of writing."""
        return [entry.measurement for entry in self._find(series, model_sha256)]

    def has_model(self, series: str, model_sha256: str) -> bool:
        """Return True when a process of a model is recorded in a series."""
        return bool(self._find(series, model_sha256))

    def append(self, series: str, measurement: Measurement) -> None:
        """Append a process; its line and the file's name are on the disk when this returns.

        Raises:
            EdgeNASError: It cannot be written. The file holds what it held before.
        """
        place = len(self.entries)
        content = _to_content(series, measurement.to_dict())
        is_new_file = not self._end or self._version < _VERSION
        try:
            if self._version < _VERSION:
                self._rewrite()
            line = _to_line(content)
            data = line if self._end else _header(_VERSION) + line
            append_at(self.path, self._end, data)
            if is_new_file:
                _sync_names(self.path)
        except OSError as error:
            self._state = None
            reason = f"cannot be written ({error.strerror})"
            raise EdgeNASError(f"{self.path}: {reason}; free space or choose another folder") from None
        self._end += len(data)
        self._state = _file_state(self.path)
        self._add(json.loads(content), content, place)

    def _rewrite(self) -> None:
        """Replace a file of an older version by one of this version with the same measurements."""
        data = _header(_VERSION) + b"".join(_to_line(entry.content) for entry in self._entries)
        write_bytes(self.path, data)
        self._version, self._end, self._state = _VERSION, len(data), _file_state(self.path)

    def _find(self, series: str, model_sha256: str) -> list[LogEntry]:
        return self._index.get((series, model_sha256), []) if self.entries else []

    def _read(self) -> None:
        data = _read_file(self.path)
        self._version, self._end = _VERSION, data.rfind(b"\n") + 1
        self._entries, self._index = [], {}
        header, *lines = data.split(b"\n")
        if self._end:
            self._version = _check_header(header, self.path)
            for place, line in enumerate(lines[:-1]):
                self._read_line(line, place)
        elif not any(
            _header(version).startswith(data) for version in range(oldest_version(_VERSION, _UPGRADES), _VERSION + 1)
        ):
            raise FormatError(f"{self.path}: is no log of measurements; move it away and run the command again")
        if self._end < len(data) and not self._has_said:
            self._has_said = True
            self._say(f"measure   {self.path}: ignores its last line, which was cut off while it was written")

    def _read_line(self, line: bytes, place: int) -> None:
        """Check a line, upgrade it to this version, and add it."""
        content = _checked_content(line, self._where(place))
        try:
            record = json.loads(content)
            if self._version < _VERSION:
                for version in range(self._version, _VERSION):
                    record["measurement"] = _UPGRADES[version](record["measurement"])
                content = canonical_json_bytes(record)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            raise FormatError(f"{self._where(place)}: is no measurement; {_REMEDY}") from None
        self._add(record, content, place)

    def _add(self, record: Any, content: bytes, place: int) -> None:
        try:
            if record.get("reference"):
                return  # of a model that earlier versions ran between the others
            model = str(record["measurement"]["model_sha256"])
            entry = LogEntry(str(record["series"]), model, content, self._where(place))
        except (AttributeError, KeyError, TypeError):
            raise FormatError(f"{self._where(place)}: is no measurement; {_REMEDY}") from None
        self._entries.append(entry)
        self._index.setdefault((entry.series, entry.model_sha256), []).append(entry)

    def _where(self, place: int) -> str:
        return f"{self.path}, line {place + 2}"  # the header is line 1


def log_bytes(records: Iterable[tuple[str, Mapping[str, Any]]]) -> bytes:
    """Return the bytes of a log; ``records`` are the series and ``Measurement.to_dict()`` of each process."""
    return _header(_VERSION) + b"".join(_to_line(_to_content(*record)) for record in records)


def _header(version: int) -> bytes:
    return canonical_json_bytes({"format": f"edgenas.{_KIND}", "version": version}) + b"\n"


def _to_content(series: str, measurement: Mapping[str, Any]) -> bytes:
    return canonical_json_bytes({"measurement": measurement, "series": series})


def _to_line(content: bytes) -> bytes:
    return _START + sha256_hex(content).encode() + _MIDDLE + content[1:] + b"\n"


def _checked_content(line: bytes, where: str) -> bytes:
    """Return the content of a line without its end; raise FormatError when the checksum does not match."""
    start = len(_START) + _DIGITS + len(_MIDDLE)
    content = b"{" + line[start:]
    if _to_line(content) != line + b"\n":
        raise FormatError(f"{where}: is damaged or was edited (its checksum does not match); {_REMEDY}")
    return content


def _check_header(line: bytes, path: Path) -> int:
    """Return the version of a log from its first line; raise FormatError for one that cannot be read."""
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise FormatError(f"{path}, line 1: is damaged (not JSON); write {_header(_VERSION).decode().strip()} there")
    return parse_header_version(header, path, _KIND, _VERSION, oldest_version(_VERSION, _UPGRADES))


def _read_file(path: Path) -> bytes:
    """Return all bytes, none for a file that does not exist."""
    try:
        with opened_without_links(path, os.O_RDONLY) as descriptor, open(descriptor, "rb", closefd=False) as file:
            return file.read()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None


def _sync_names(path: Path) -> None:
    """Write the names of a new file and of its folders, which may be new, too, to the disk."""
    for folder in [*path.absolute().parents][:3]:
        with contextlib.suppress(OSError):  # some file systems cannot do this for a folder
            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _file_state(path: Path) -> tuple[int, int]:
    """Return what changes whenever a log is appended to or replaced: inode and size; 0, 0 for no file."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_ino, status.st_size
