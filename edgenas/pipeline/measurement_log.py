"""The log of a target's measurements: JSON lines that are only ever appended, one for each process."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edgenas.errors import EdgeNASError, FormatError, UsageError
from edgenas.files import canonical_json_bytes, parse_header_version, sha256_hex
from edgenas.profilers import Measurement

_KIND, _VERSION = "measurements", 4  # the version is that of the measurements, edgenas.measurement
_HEADER = canonical_json_bytes({"format": f"edgenas.{_KIND}", "version": _VERSION}) + b"\n"
# A line is {"sha256":"DIGITS",REST where DIGITS are those of {REST, which is canonical JSON.
_START, _DIGITS, _MIDDLE = b'{"sha256":"', 64, b'",'
_REMEDY = "remove that line; what it held is measured again when it is needed"


@dataclass(frozen=True)
class LogEntry:
    """One process, as a line of the log holds it.

    Attributes:
        series: The key of the target, connection and settings that it was measured with.
        model_sha256: The SHA-256 of the model file; None for the reference model, which runs between the others.
        content: The line's canonical JSON, without the checksum.
        where: File and line number, for messages.
    """

    series: str
    model_sha256: str | None
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

    The file is read and checked as a whole when it is first needed. A last
    line that was cut off while it was written, by a kill for example, is
    dropped, and overwritten by the next one. Only the holder of the run's lock
    may append.

    Args:
        path: The file.
        say: Is given a line of text when a cut line is dropped.
    """

    def __init__(self, path: Path, say: Callable[[str], None] = lambda text: None) -> None:
        self._path, self._say = path, say
        self._is_read = False
        self._entries: list[LogEntry] = []
        self._index: dict[tuple[str, str | None], list[LogEntry]] = {}
        self._end = self._size = 0  # of the whole lines, and of the file, in bytes

    @property
    def entries(self) -> list[LogEntry]:
        """All lines, in the order of writing.

        Raises:
            FormatError: A line is damaged, or the file is of another kind or of a newer edgenas.
            UsageError: The file is a link or no regular file, or cannot be read.
        """
        if not self._is_read:
            self._read()
        return self._entries

    def of_model(self, series: str, model_sha256: str) -> list[Measurement]:
        """Return the processes of a model in a series, in the order of writing."""
        return [entry.measurement for entry in self._find(series, model_sha256)]

    def of_reference(self, series: str) -> list[Measurement]:
        """Return the processes of the reference model in a series, in the order of writing."""
        return [entry.measurement for entry in self._find(series, None)]

    def has_model(self, series: str, model_sha256: str) -> bool:
        """Return True when a process of a model is recorded in a series."""
        return bool(self._find(series, model_sha256))

    def append(self, series: str, measurement: Measurement, *, is_reference: bool = False) -> None:
        """Append a process; it is on the disk when this returns.

        Raises:
            EdgeNASError: It cannot be written. The file holds what it held before.
        """
        if self._is_read and _size(self._path) != self._size:
            self._is_read = False  # another log of this process has appended to the file
        place = len(self.entries)
        content = _to_content(series, measurement.to_dict(), is_reference)
        data = _to_line(content) if self._end else _HEADER + _to_line(content)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with _opened(self._path, os.O_WRONLY | os.O_CREAT) as descriptor:
                _write_at(descriptor, self._end, data)
        except OSError as error:
            self._is_read = False
            reason = f"cannot be written ({error.strerror})"
            raise EdgeNASError(f"{self._path}: {reason}; free space or choose another folder") from None
        self._end = self._size = self._end + len(data)
        self._add(content, place)

    def _find(self, series: str, model_sha256: str | None) -> list[LogEntry]:
        return self._index.get((series, model_sha256), []) if self.entries else []

    def _read(self) -> None:
        data = _read_file(self._path)
        self._end, self._size = data.rfind(b"\n") + 1, len(data)
        self._entries, self._index = [], {}
        header, *lines = data.split(b"\n")
        if self._end:
            _check_header(header, self._path)
            for place, line in enumerate(lines[:-1]):
                self._add(_checked_content(line, self._where(place)), place)
        elif not _HEADER.startswith(data):
            raise FormatError(f"{self._path}: is no log of measurements; move it away and run the command again")
        if self._end < self._size:
            self._say(f"{self._path}: drops its last line, which was cut off while it was written")
        self._is_read = True

    def _add(self, content: bytes, place: int) -> None:
        try:
            parsed = json.loads(content)
            model = None if parsed["reference"] else str(parsed["measurement"]["model_sha256"])
            entry = LogEntry(str(parsed["series"]), model, content, self._where(place))
        except (KeyError, TypeError, ValueError, RecursionError):
            raise FormatError(f"{self._where(place)}: is no measurement; {_REMEDY}") from None
        self._entries.append(entry)
        self._index.setdefault((entry.series, entry.model_sha256), []).append(entry)

    def _where(self, place: int) -> str:
        return f"{self._path}, line {place + 2}"  # the header is line 1


def log_bytes(records: Iterable[tuple[str, Mapping[str, Any], bool]]) -> bytes:
    """Return a whole log.

    Args:
        records: For each process the series, ``Measurement.to_dict()``, and True if it is of the reference model.
    """
    return _HEADER + b"".join(_to_line(_to_content(*record)) for record in records)


def _to_content(series: str, measurement: Mapping[str, Any], is_reference: bool) -> bytes:
    return canonical_json_bytes({"measurement": measurement, "reference": is_reference, "series": series})


def _to_line(content: bytes) -> bytes:
    return _START + sha256_hex(content).encode() + _MIDDLE + content[1:] + b"\n"


def _checked_content(line: bytes, where: str) -> bytes:
    """Return the content of a line without its end; raise FormatError when the checksum does not match."""
    start = len(_START) + _DIGITS + len(_MIDDLE)
    content = b"{" + line[start:]
    if _to_line(content) != line + b"\n":
        raise FormatError(f"{where}: is damaged or was edited (its checksum does not match); {_REMEDY}")
    return content


def _check_header(line: bytes, path: Path) -> None:
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise FormatError(f"{path}, line 1: is damaged (not JSON); write {_HEADER.decode().strip()} there")
    parse_header_version(header, path, _KIND, _VERSION)


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """Open a regular file without following a link; raise UsageError for anything else, OSError if it fails."""
    remedy = "is a link or no regular file; move it away"
    try:
        # O_NONBLOCK: opening a named pipe would wait for its other end.
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise UsageError(f"{path}: {remedy}") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageError(f"{path}: {remedy}")
        yield descriptor
    finally:
        os.close(descriptor)


def _read_file(path: Path) -> bytes:
    """Return all bytes, none for a file that does not exist."""
    try:
        with _opened(path, os.O_RDONLY) as descriptor, open(descriptor, "rb", closefd=False) as file:
            return file.read()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None


def _write_at(descriptor: int, end: int, data: bytes) -> None:
    """Write after the first ``end`` bytes, to the disk; raise OSError with the file cut back there when it fails."""
    os.ftruncate(descriptor, end)
    os.lseek(descriptor, end, os.SEEK_SET)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, end)
        raise


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
