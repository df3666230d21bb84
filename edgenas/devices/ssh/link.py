"""This side's end of the talk with a worker: frames over one SSH channel, and the signs of life on both sides."""

from __future__ import annotations

import contextlib
import json
import shlex
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas import on_device
from edgenas.devices.contract import Deadline
from edgenas.devices.ssh.connection import SILENCE_SECONDS, giving_up
from edgenas.errors import DeviceError
from edgenas.on_device import worker

if TYPE_CHECKING:
    from paramiko import Channel, Transport

_ON_DEVICE = Path(on_device.__file__).parent
SENT = ("process", "work_folder", "worker")
_START_SECONDS = 60.0  # a login shell may take its time
_POLL_SECONDS = 0.5
_REAP_SECONDS = 0.002
_BEAT_SECONDS = 5.0
_TIDY_SECONDS = 5.0
_PIECE = 32 * 1024 - 128  # with its header one packet of SSH, not two
_CHUNK = 1 << 16
_NOISE_KEPT = 4096
_MOST_PIECES = 64
# Reads the program that follows on standard input; the modules find each other under their own names.
_START = (
    "import sys;sys.version_info<(3,8) and sys.exit('Python 3.8 or newer is needed');"
    "exec(open(0,'rb',closefd=False).read(int(sys.argv[1])))"
)
_PROGRAM = """
import sys, types
def module(name, source=None):
    made = sys.modules[name] = types.ModuleType(name)
    made.__path__ = []
    if source:
        exec(compile(source, name, "exec"), made.__dict__)
    return made
module("edgenas")
module("edgenas.on_device")
"""


class LinkLostError(DeviceError):
    """The connection is of no more use."""


class WorkerLink:
    """The talk with a worker that was just started. Raises DeviceError when it cannot be started.

    Frames are sent whole from any thread and received by one.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        python: str,
        parents: list[str],
        silence_seconds: float,
        deadline: Deadline,
    ) -> None:
        self._name = name
        self._received, self._noise = bytearray(), bytearray()
        self._sending = threading.Lock()
        self._stop = threading.Event()
        program = _program(parents, silence_seconds)
        command = shlex.join([python, "-I", "-c", _START, str(len(program))])
        self._channel = _open_channel(transport, command, name, deadline)
        try:
            self._send_bytes(program)
            self._skip_to_mark(python, deadline)
            self.folder = self._greet(deadline)
        except BaseException:
            self._channel.close()
            raise
        self._beating = threading.Thread(
            target=self._beat, args=(min(_BEAT_SECONDS, silence_seconds / 4),), daemon=True
        )
        self._beating.start()

    def ask(self, deadline: Deadline, what: str, do: str, **content: Any) -> dict[str, Any]:
        """The answer to a request."""
        self.request(do, **content)
        return self.answer(deadline, what)

    def request(self, do: str, **content: Any) -> None:
        self.send(b"J", json.dumps({"do": do, **content}).encode())

    def answer(self, deadline: Deadline, what: str) -> dict[str, Any]:
        """The next frame, which must be an answer."""
        kind, content = self.receive(deadline, what)
        if kind != b"J":
            raise LinkLostError(f"{self._name}: answered {kind!r} out of turn; connect again")
        return dict(json.loads(content))

    def send(self, kind: bytes, content: bytes = b"") -> None:
        """Send one frame."""
        with self._sending:
            self._send_bytes(worker.HEADER.pack(kind, len(content)) + content)

    def send_pieces(self, kind: bytes, content: bytes, deadline: Deadline, what: str) -> None:
        """Send content of any length as frames of one kind."""
        for start in range(0, len(content), _PIECE):
            deadline.check(what)
            self.send(kind, content[start : start + _PIECE])

    def receive(self, deadline: Deadline, what: str) -> tuple[bytes, bytes]:
        """The next frame that is more than a sign of life. Raises DeviceError at the deadline, and when none come."""
        quiet_seconds = 0.0
        while True:
            while frame := self._next_frame():
                if frame[0] != b"B":
                    return frame
            deadline.check(what)
            try:
                quiet_seconds = 0.0 if self._take(min(_POLL_SECONDS, deadline.left)) else quiet_seconds + _POLL_SECONDS
            except EOFError:
                raise _lost(self._name, self._last_words()[1]) from None
            if quiet_seconds >= SILENCE_SECONDS:
                raise _silent(self._name)

    def _next_frame(self) -> tuple[bytes, bytes] | None:
        """The first whole frame of what has come."""
        start = worker.HEADER.size
        if len(self._received) < start:
            return None
        kind, length = worker.HEADER.unpack_from(self._received)
        if len(self._received) < start + length:
            return None
        content = bytes(self._received[start : start + length])
        del self._received[: start + length]
        return kind, content

    def close(self, *, wait: bool) -> None:
        """End the talk; the worker sees it and tidies up, which may be waited for."""
        self._stop.set()
        if wait:
            with contextlib.suppress(OSError):
                self._channel.shutdown_write()
            self._await_end()
        self._channel.close()
        self._beating.join()

    def _await_end(self) -> None:
        deadline = Deadline(_TIDY_SECONDS)
        while deadline.left and not self._channel.exit_status_ready():
            time.sleep(_REAP_SECONDS)

    def _take(self, seconds: float) -> bool:
        """Wait for the next bytes; whether there were any. Raises EOFError when no more will come."""
        self._channel.settimeout(seconds)
        noisy = _drain_errors(self._channel, self._noise)
        try:
            data = self._channel.recv(_CHUNK)
        except TimeoutError:
            return noisy
        if not data:
            raise EOFError
        self._received += data
        return True

    def _skip_to_mark(self, python: str, deadline: Deadline) -> None:
        """Pass over what the login shell says, up to the worker's first word."""
        quiet_seconds = 0.0
        while worker.MARK not in self._received:
            deadline.check(f"{self._name}: starting {python}")
            try:
                quiet_seconds = 0.0 if self._take(min(_POLL_SECONDS, deadline.left)) else quiet_seconds + _POLL_SECONDS
            except EOFError:
                raise DeviceError(self._why_not(python)) from None
            if quiet_seconds >= _START_SECONDS:
                raise _silent(self._name, _START_SECONDS)
        del self._received[: self._received.index(worker.MARK) + len(worker.MARK)]

    def _greet(self, deadline: Deadline) -> str:
        """The work folder, which is the first thing that a worker tells."""
        hello = self.answer(deadline, f"{self._name}: making a work folder")
        if "error" in hello:
            raise DeviceError(
                f"{self._name}: no work folder can be made in {hello['path']} there ({hello['error']});"
                " free space there or set work_dir in the profile"
            )
        return str(hello["folder"])

    def _why_not(self, python: str) -> str:
        status, said = self._last_words()
        if status in (126, 127):
            return (
                f"{self._name}: {python} cannot be run there ({said or 'not found'});"
                " install Python 3.8 or newer (sudo apt install python3), or correct python in the profile"
            )
        return (
            f"{self._name}: {python} ended at once there ({said or f'status {status}'});"
            " correct python in the profile, or try it there by hand"
        )

    def _last_words(self) -> tuple[int, str]:
        """The exit status, -1 when the connection broke, and the last line of standard error."""
        self._channel.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            while data := self._channel.recv_stderr(_CHUNK):
                self._noise = (self._noise + data)[-_NOISE_KEPT:]
        self._await_end()
        return self._channel.exit_status, _last_line(self._noise)

    def _send_bytes(self, data: bytes) -> None:
        rest, quiet_seconds = data, 0.0
        while rest:
            try:
                rest = rest[self._channel.send(rest) :]
                quiet_seconds = 0.0
            except TimeoutError:
                quiet_seconds += _POLL_SECONDS
                if quiet_seconds >= SILENCE_SECONDS:
                    raise _silent(self._name) from None
            except OSError:
                raise _lost(self._name) from None

    def _beat(self, seconds: float) -> None:
        with contextlib.suppress(DeviceError):
            while not self._stop.wait(seconds):
                self.send(b"B")


def shell(transport: Transport, name: str, command: Sequence[str], mark: str, deadline: Deadline) -> str:
    """What a command prints from its first ``mark`` on, before which the login shell may say anything.

    The command ends by itself, reads nothing and stands on one line, which
    every login shell can read. Raises DeviceError.
    """
    channel = _open_channel(transport, shlex.join(command), name, deadline)
    said, noise, quiet_seconds, open_still = bytearray(), bytearray(), 0.0, True
    try:
        while open_still or not channel.exit_status_ready():
            deadline.check(f"{name}: a command")
            if quiet_seconds >= _START_SECONDS:
                raise _silent(name, _START_SECONDS)
            if _drain_errors(channel, noise):
                quiet_seconds = 0.0
            try:
                data = channel.recv(_CHUNK)
            except TimeoutError:
                quiet_seconds += _POLL_SECONDS
                continue
            said, quiet_seconds, open_still = said + data, quiet_seconds if not data else 0.0, bool(data)
            if not open_still:
                time.sleep(_REAP_SECONDS)
                quiet_seconds += _REAP_SECONDS
        _drain_errors(channel, noise)
    finally:
        channel.close()
    if channel.exit_status < 0:
        raise _lost(name)
    before, found, after = said.decode(errors="replace").partition(mark)
    if not found:
        why = _last_line(noise) or _last_line(before.encode()) or f"status {channel.exit_status}"
        raise DeviceError(f"{name}: its login shell runs no commands ({why}); choose a user who may run some there")
    return after


def _drain_errors(channel: Channel, noise: bytearray) -> bool:
    """Take what has come on standard error, so that it cannot fill up, and keep its end; whether there was any."""
    for number in range(_MOST_PIECES):
        if not channel.recv_stderr_ready():
            return number > 0
        noise += channel.recv_stderr(_CHUNK)
        del noise[:-_NOISE_KEPT]
    return True


def _last_line(said: bytes | bytearray) -> str:
    return " ".join(said.decode(errors="replace").strip().rpartition("\n")[2].split())[:400]


def _open_channel(transport: Transport, command: str, name: str, deadline: Deadline) -> Channel:
    """Start a command line of the login shell there, whose words were quoted by ``shlex``. Raises DeviceError."""
    import paramiko

    try:
        with giving_up(transport, deadline):
            channel = transport.open_session(timeout=min(SILENCE_SECONDS, deadline.left))
            channel.settimeout(_POLL_SECONDS)
            channel.exec_command(command)
    except (paramiko.SSHException, EOFError, OSError) as error:
        deadline.check(f"{name}: starting a command")
        raise _lost(name, str(error)) from None
    return channel


def _lost(name: str, why: str = "") -> LinkLostError:
    said = f" ({why})" if why else ""
    return LinkLostError(f"{name}: the connection was lost{said}; check the device and try again")


def _silent(name: str, seconds: float = SILENCE_SECONDS) -> LinkLostError:
    return LinkLostError(
        f"{name}: gave no sign of life for {seconds:g} s; check the device and its network, and try again"
    )


def _program(parents: list[str], silence_seconds: float) -> bytes:
    sources = [(f"edgenas.on_device.{module}", (_ON_DEVICE / f"{module}.py").read_text()) for module in SENT]
    made = [f"last = module({name!r}, {source!r})" for name, source in sources]
    return "\n".join([_PROGRAM, *made, f"last.main({parents!r}, {silence_seconds!r})"]).encode()
