"""The remote worker: serves one connection on a device by running commands, exchanging files and holding the lock.

Sent there and run by its Python 3.8 or newer; standard library only. It speaks
frames over standard input and output: a letter, the length of the content in
four bytes, the content.

=====  ===========  =========================================================
frame  from         content
=====  ===========  =========================================================
``J``  both         a request, or the one answer to it, as JSON
``R``  worker       instead of an answer: why the request cannot be fulfilled, as JSON
``I``  host         standard input for the running command
``F``  both         a piece of the file being sent
``K``  host         kill the running command
``B``  both         a sign of life; the worker gives one while it is busy
``O``  worker       standard output of the command
``E``  worker       standard error of the command
``X``  worker       the command has ended: its status, as JSON
=====  ===========  =========================================================

When standard input ends, or the host gives no sign of life for the seconds that it
named at the start, the worker and its command end and the work folder is removed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import selectors
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edgenas.on_device.process import Process
from edgenas.on_device.work_folder import DeviceLock, KeptFiles, WorkFolder, find_device_lock, read_file_digest

MARK = b"edgenas worker 1\n"
HEADER = struct.Struct("!cI")
PULSE_SECONDS = 2.0
_PIECE_BYTES = 32 * 1024
_MAX_OUTGOING = 1 << 20
_KEPT_BYTES = 512 << 20
_FREE_BYTES = 32 << 20


class HostGoneError(Exception):
    """The host is gone."""


class RemoteWorker:
    """Serves one host until it is gone."""

    def __init__(self, folder: WorkFolder, silence_seconds: float) -> None:
        self._work = folder
        self._silence = silence_seconds
        self._quiet_seconds, self._last_sent = 0.0, time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._incoming, self._outgoing = bytearray(), bytearray()
        self._process: Process | None = None
        self._incoming_file: IncomingFile | None = None
        self._outgoing_file: Any = None
        self._pushed: dict[str, tuple[str, int, int]] = {}
        self._lock = DeviceLock(find_device_lock(folder.path.parent))
        self._kept = KeptFiles(folder.path.parent, self._send_sign_of_life_if_due)
        for stream in (0, 1):
            os.set_blocking(stream, False)
        self._selector.register(0, selectors.EVENT_READ, self._read_and_handle_frames)

    def serve(self) -> None:
        """Serve until the host is gone."""
        try:
            while self._quiet_seconds < self._silence:
                self._wait_and_handle_io()
                self._update_process()
                self._send_file_pieces()
        except (HostGoneError, BrokenPipeError, ConnectionResetError):
            pass
        finally:
            if self._process:
                self._process.kill_and_close()
            self._lock.release()

    def _wait_and_handle_io(self) -> None:
        """Wait for input or output and handle it; a wait counts at most its planned time, since machines stall."""
        patience = min(self._silence / 4, 5.0 if self._process is None else self._process.poll_interval_s)
        started = time.monotonic()
        for key, _ in self._selector.select(patience):
            key.data()
        self._quiet_seconds += min(patience, time.monotonic() - started)

    def send_answer(self, **content: Any) -> None:
        """Send the answer to a request."""
        self._send_frame(b"J", json.dumps(content).encode())

    # -- frames --------------------------------------------------------------------

    def _read_and_handle_frames(self) -> None:
        data = os.read(0, 1 << 16)
        if not data:
            raise HostGoneError
        self._quiet_seconds = 0.0
        self._incoming += data
        while len(self._incoming) >= HEADER.size:
            kind, length = HEADER.unpack_from(self._incoming)
            if len(self._incoming) < HEADER.size + length:
                return
            content = bytes(self._incoming[HEADER.size : HEADER.size + length])
            del self._incoming[: HEADER.size + length]
            self._handle_frame(kind, content)

    def _handle_frame(self, kind: bytes, content: bytes) -> None:
        try:
            self._dispatch_frame(kind, content)
        except (BrokenPipeError, ConnectionResetError):
            raise HostGoneError from None
        except OSError as error:
            self._send_frame(b"R", encode_refusal(error))

    def _dispatch_frame(self, kind: bytes, content: bytes) -> None:
        if kind == b"J":
            request = json.loads(content)
            getattr(self, "_do_" + request.pop("do"))(**request)
        elif kind == b"F" and self._incoming_file:
            self._write_piece(self._incoming_file, content)
        elif kind == b"I" and self._process:
            self._process.queue_stdin(content)
        elif kind == b"K" and self._process:
            self._process.kill_and_close()
            self._send_exit_status()

    def _send_frame(self, kind: bytes, content: bytes = b"") -> None:
        self._outgoing += HEADER.pack(kind, len(content)) + content
        self._last_sent = time.monotonic()
        self._write_outgoing()

    def _write_outgoing(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._outgoing:
                del self._outgoing[: os.write(1, self._outgoing[: 1 << 16])]
        registered = 1 in self._selector.get_map()
        if self._outgoing and not registered:
            self._selector.register(1, selectors.EVENT_WRITE, self._write_outgoing)
        elif registered and not self._outgoing:
            self._selector.unregister(1)

    def _send_sign_of_life_if_due(self) -> None:
        if time.monotonic() - self._last_sent >= PULSE_SECONDS:
            self._send_frame(b"B")

    # -- commands ------------------------------------------------------------------

    def _do_run(self, command: list[str]) -> None:
        self._process = Process(
            self._selector,
            command,
            str(self._work.path),
            lambda data: self._send_frame(b"O", data),
            lambda data: self._send_frame(b"E", data),
        )
        self.send_answer()

    def _update_process(self) -> None:
        if self._process is None:
            return
        self._send_sign_of_life_if_due()
        if len(self._outgoing) > _MAX_OUTGOING:
            self._process.pause_reading()
        elif self._process.has_ended():
            self._process.kill_and_close()
            self._send_exit_status()
        else:
            self._process.resume_reading()

    def _send_exit_status(self) -> None:
        assert self._process is not None
        status, self._process = self._process.exit_status, None
        self._send_frame(b"X", json.dumps(status).encode())

    # -- files ---------------------------------------------------------------------

    def _do_push(self, name: str, sha256: str, size: int) -> None:
        target = self._work.path / name
        if self._pushed.get(name) == (sha256, *_stat_size_and_time(target)) or self._kept.link_if_kept(sha256, target):
            self._send_stored_answer(name, sha256)
            return
        self._kept.trim(_KEPT_BYTES - size, size + _FREE_BYTES)
        self._incoming_file = IncomingFile(target, sha256, size)
        self.send_answer(path=None)
        self._write_piece(self._incoming_file, b"")

    def _write_piece(self, file: IncomingFile, piece: bytes) -> None:
        file.write(piece)
        self._send_sign_of_life_if_due()
        if file.missing > 0:
            return
        self._incoming_file = None
        file.commit()
        self._kept.keep(file.target, file.sha256)
        self._send_stored_answer(file.target.name, file.sha256)

    def _send_stored_answer(self, name: str, sha256: str) -> None:
        target = self._work.path / name
        self._pushed[name] = (sha256, *_stat_size_and_time(target))
        self.send_answer(path=str(target))

    def _do_pull(self, name: str) -> None:
        source = self._work.path / name
        if not source.is_file():
            raise FileNotFoundError(errno.ENOENT, "there is no such file", name)
        self.send_answer(sha256=read_file_digest(source, self._send_sign_of_life_if_due), size=source.stat().st_size)
        self._outgoing_file = source.open("rb")

    def _send_file_pieces(self) -> None:
        while self._outgoing_file and len(self._outgoing) < _MAX_OUTGOING:
            piece = self._outgoing_file.read(_PIECE_BYTES)
            if not piece:
                self._outgoing_file.close()
                self._outgoing_file = None
            else:
                self._send_frame(b"F", piece)

    # -- the lock ------------------------------------------------------------------

    def _do_lock(self, holder: str) -> None:
        self.send_answer(held_by=self._lock.acquire_or_get_holder(holder))

    def _do_unlock(self) -> None:
        self._lock.release()
        self.send_answer()


class IncomingFile:
    """A file that is being received, under a temporary name; errors are raised when all of it has come."""

    def __init__(self, target: Path, sha256: str, size: int) -> None:
        self.target, self.sha256, self.missing = target, sha256, size
        self._temporary = target.with_name(f".{target.name}.new")
        self._sha256 = hashlib.sha256()
        self._error: OSError | None = None
        self._file = self._temporary.open("wb")

    def write(self, piece: bytes) -> None:
        """Add a piece; an error is kept for ``commit``."""
        self.missing -= len(piece)
        self._sha256.update(piece)
        if self._error is None:
            try:
                self._file.write(piece)
            except OSError as error:
                self._error = error

    def commit(self) -> None:
        """Give the file its name; raise OSError, and leave nothing, when it could not be stored whole."""
        try:
            self._file.close()
        except OSError as error:
            self._error = self._error or error
        if self._error is None and self._sha256.hexdigest() != self.sha256:
            self._error = OSError(0, "it arrived changed")
        if self._error is not None:
            self._temporary.unlink()
            raise self._error
        self._temporary.replace(self.target)


def _stat_size_and_time(path: Path) -> tuple[int, int]:
    """Return a file's size and time, which show that it was changed; -1 for an absent one."""
    try:
        stat = path.stat()
    except OSError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def encode_refusal(error: OSError) -> bytes:
    """Return the content of the frame that says why a request cannot be fulfilled."""
    path = None if error.filename is None else str(error.filename)
    return json.dumps({"error": error.strerror or str(error), "path": path}).encode()


def make_work_folder(parents: list[str]) -> WorkFolder:
    """Make a work folder in the first parent that can be written; an empty parent is the folder for temporary files."""
    errors: list[OSError] = []
    for parent in parents:
        try:
            return WorkFolder(Path(parent).expanduser() if parent else _make_temporary_parent())
        except OSError as error:
            errors.append(error)
        except RuntimeError:
            errors.append(OSError(errno.ENOENT, "there is no such user", parent))
    raise errors[0]


def _make_temporary_parent() -> Path:
    """Return this user's folder among the temporary files; raise OSError when another user has taken its name."""
    folder = Path(tempfile.gettempdir(), f"edgenas-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if folder.lstat().st_uid != os.getuid() or folder.is_symlink():
        raise PermissionError(errno.EPERM, "is another user's", str(folder))
    return folder


def main(parents: list[str], silence_seconds: float) -> None:
    """Serve in a work folder under the first of ``parents`` that can be written."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.write(1, MARK)
    try:
        work = make_work_folder(parents)
    except OSError as error:
        content = encode_refusal(error)
        os.write(1, HEADER.pack(b"R", len(content)) + content)
        return
    try:
        worker = RemoteWorker(work, silence_seconds)
        worker.send_answer(folder=str(work.path))
        worker.serve()
    finally:
        work.remove()
