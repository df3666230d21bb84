"""The host's end of the link to a remote worker: frames over one channel, with heartbeats in both directions."""

from __future__ import annotations

import contextlib
import json
import shlex
import threading
import time
from pathlib import Path
from typing import Any, TypeVar

from edgenas import on_device
from edgenas.devices.answers import MAX_ANSWER_BYTES, read_answer
from edgenas.devices.channel import (
    CHUNK_BYTES,
    POLL_SECONDS,
    REAP_SECONDS,
    SHELL_SECONDS,
    SILENCE_SECONDS,
    STDERR_KEPT_BYTES,
    ConnectionLostError,
    StartCommand,
    check_shell_output_size,
    drain_stderr_into,
    lost_error,
    silence_error,
)
from edgenas.devices.contract import Deadline
from edgenas.devices.output import last_line
from edgenas.devices.worker_answers import Refusal, WorkFolderMade
from edgenas.errors import DeviceError
from edgenas.on_device import worker

Kind = TypeVar("Kind")

SENT_MODULES = ("process", "work_folder", "worker")  # of edgenas.on_device, in the order of their imports
_ON_DEVICE = Path(on_device.__file__).parent
_HEARTBEAT_SECONDS = 5.0
_CLOSE_SECONDS = 5.0
_FRAME_BYTES = 32 * 1024 - 128  # with its header one packet of SSH, not two
# Runs the program that follows on standard input. The modules import each other under their own names.
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


class ChannelClosedError(ConnectionLostError):
    """The channel to the worker was closed from there: it ended, or the connection broke."""


class WorkerLink:
    """A new remote worker on a device, and the frames to and from it.

    Any thread may send frames, which are sent whole. One thread receives.

    Args:
        start: Starts a command line on the device.
        name: The device's name in messages.
        python: The interpreter that runs the worker.
        parents: Folders for the work folder; the first that can be written is used.
        silence_seconds: The worker ends when it receives nothing for this long.
        deadline: The time until the worker must have started.

    Attributes:
        folder: The path of the work folder on the device.

    Raises:
        DeviceError: The worker cannot be started.
    """

    def __init__(
        self,
        start: StartCommand,
        name: str,
        python: str,
        parents: list[str],
        silence_seconds: float,
        deadline: Deadline,
    ) -> None:
        self._name = name
        self._received, self._stderr = bytearray(), bytearray()
        self._sending = threading.Lock()
        self._closed = threading.Event()
        program = _build_worker_program(parents, silence_seconds)
        command = shlex.join([python, "-I", "-c", _START, str(len(program))])
        self._channel = start(command, deadline)
        try:
            self._start_worker(program, python, deadline)
            self.folder = self._receive_work_folder_path(deadline)
        except BaseException:
            self._channel.close()
            raise
        seconds = min(_HEARTBEAT_SECONDS, silence_seconds / 4)
        self._heartbeat = threading.Thread(target=self._send_heartbeats, args=(seconds,), daemon=True)
        self._heartbeat.start()

    def request(self, kind: type[Kind], deadline: Deadline, what: str, do: str, **content: Any) -> Kind | Refusal:
        """Send a request and return the worker's answer.

        Args:
            kind: The type of the answer.
            deadline: The time until the answer must be there.
            what: The work's name in messages.
            do: The name of the request.
            **content: Its arguments.

        Raises:
            DeviceError: The deadline passed, or the device is lost or silent or answers something else.
        """
        self.send_frame(b"J", json.dumps({"do": do, **content}).encode())
        return self.receive_answer(kind, deadline, what)

    def receive_answer(self, kind: type[Kind], deadline: Deadline, what: str) -> Kind | Refusal:
        """Return the next frame, which must be an answer of this type or a refusal."""
        letter, content = self.receive_frame(deadline, what)
        if letter == b"R":
            return self.read_content(Refusal, content)
        if letter != b"J":
            raise self.out_of_turn_error(letter)
        return self.read_content(kind, content)

    def read_content(self, kind: type[Kind], content: bytes) -> Kind:
        """Return the content of a frame, which must be of this type."""
        try:
            return read_answer(kind, content, self._name)
        except DeviceError as error:
            raise ConnectionLostError(str(error)) from None

    def out_of_turn_error(self, letter: bytes) -> ConnectionLostError:
        """Return the error of a frame that was not due."""
        return ConnectionLostError(f"{self._name}: answered {letter!r} out of turn; connect again")

    def send_frame(self, kind: bytes, content: bytes = b"") -> None:
        """Send one frame."""
        with self._sending:
            self._send_bytes(worker.HEADER.pack(kind, len(content)) + content)

    def send_frames(self, kind: bytes, content: bytes, deadline: Deadline, what: str) -> None:
        """Send content of any length as frames of one kind."""
        for start in range(0, len(content), _FRAME_BYTES):
            deadline.check(what)
            self.send_frame(kind, content[start : start + _FRAME_BYTES])

    def receive_frame(self, deadline: Deadline, what: str) -> tuple[bytes, bytes]:
        """Return the letter and content of the next frame that is no heartbeat.

        Raises:
            DeviceError: The deadline passed, the device is lost or silent, or the frame is too long.
        """
        while True:
            while frame := self._pop_received_frame():
                if frame[0] != b"B":
                    return frame
            try:
                self._receive_more_bytes(deadline, what, SILENCE_SECONDS)
            except EOFError:
                raise lost_error(self._name, self._read_exit_status_and_reason()[1]) from None

    def close(self, *, wait: bool) -> None:
        """Close the channel, whose worker then ends and removes its work folder.

        Args:
            wait: Wait for the worker to end, five seconds at most.
        """
        self._closed.set()
        if wait:
            with contextlib.suppress(OSError):
                self._channel.shutdown_write()
            self._wait_for_exit()
        self._channel.close()
        self._heartbeat.join()

    def _pop_received_frame(self) -> tuple[bytes, bytes] | None:
        """Remove the first whole frame from the received bytes and return it, None without one."""
        start = worker.HEADER.size
        if len(self._received) < start:
            return None
        letter, length = worker.HEADER.unpack_from(self._received)
        if length > MAX_ANSWER_BYTES:
            raise ConnectionLostError(
                f"{self._name}: announced {length} bytes where at most {MAX_ANSWER_BYTES} are due; connect again"
            )
        if len(self._received) < start + length:
            return None
        content = bytes(self._received[start : start + length])
        del self._received[: start + length]
        return letter, content

    def _receive_more_bytes(self, deadline: Deadline, what: str, silence_seconds: float) -> None:
        """Wait until bytes arrive on either stream. Raise EOFError at the end of standard output."""
        quiet_seconds = 0.0
        while quiet_seconds < silence_seconds:
            deadline.check(what)
            self._channel.settimeout(min(POLL_SECONDS, deadline.seconds_left))
            any_stderr = drain_stderr_into(self._channel, self._stderr)
            try:
                data = self._channel.recv(CHUNK_BYTES)
            except TimeoutError:
                if any_stderr:
                    return
                quiet_seconds += POLL_SECONDS
                continue
            if not data:
                raise EOFError
            self._received += data
            return
        raise silence_error(self._name, silence_seconds)

    def _start_worker(self, program: bytes, python: str, deadline: Deadline) -> None:
        """Send the program, and drop what the login shell prints before the worker's mark."""
        try:
            self._send_bytes(program)
            while worker.MARK not in self._received:
                self._receive_more_bytes(deadline, f"{self._name}: starting {python}", SHELL_SECONDS)
                check_shell_output_size(self._received, self._name)
        except (EOFError, ChannelClosedError):  # python may end before it has read the program
            raise self._read_start_error(python) from None
        del self._received[: self._received.index(worker.MARK) + len(worker.MARK)]

    def _receive_work_folder_path(self, deadline: Deadline) -> str:
        """Return the path of the work folder, which is the worker's first answer."""
        hello = self.receive_answer(WorkFolderMade, deadline, f"{self._name}: making a work folder")
        if isinstance(hello, Refusal):
            raise DeviceError(
                f"{self._name}: no work folder can be made in {hello.path} there ({hello.error});"
                " free space there or set work_dir in the profile"
            )
        return hello.folder

    def _read_start_error(self, python: str) -> DeviceError:
        status, reason = self._read_exit_status_and_reason()
        if status < 0:
            return lost_error(self._name, reason)
        if status in (126, 127):
            return DeviceError(
                f"{self._name}: {python} cannot be run there ({reason or 'not found'});"
                " install Python 3.8 or newer (sudo apt install python3), bring it along by edgenas device setup"
                " --self-contained, or correct python in the profile"
            )
        return DeviceError(
            f"{self._name}: {python} ended at once there ({reason or f'status {status}'});"
            " correct python in the profile, or try it there by hand"
        )

    def _read_exit_status_and_reason(self) -> tuple[int, str]:
        """Return the exit status, -1 when the connection broke, and the last line of standard error."""
        self._channel.settimeout(1.0)
        deadline = Deadline(_CLOSE_SECONDS)
        with contextlib.suppress(TimeoutError):
            while deadline.seconds_left and (data := self._channel.recv_stderr(CHUNK_BYTES)):
                self._stderr = (self._stderr + data)[-STDERR_KEPT_BYTES:]
        self._wait_for_exit()
        return self._channel.exit_status, last_line(self._stderr.decode(errors="replace"))

    def _wait_for_exit(self) -> None:
        deadline = Deadline(_CLOSE_SECONDS)
        while deadline.seconds_left and not self._channel.exit_status_ready():
            time.sleep(REAP_SECONDS)

    def _send_bytes(self, data: bytes) -> None:
        quiet_seconds = 0.0
        while data:
            try:
                data = data[self._channel.send(data) :]
                quiet_seconds = 0.0
            except TimeoutError:
                quiet_seconds += POLL_SECONDS
                if quiet_seconds >= SILENCE_SECONDS:
                    raise silence_error(self._name) from None
            except OSError:
                raise ChannelClosedError(str(lost_error(self._name))) from None

    def _send_heartbeats(self, seconds: float) -> None:
        with contextlib.suppress(DeviceError):
            while not self._closed.wait(seconds):
                self.send_frame(b"B")


def _build_worker_program(parents: list[str], silence_seconds: float) -> bytes:
    """Return the source of a program that defines the sent modules and runs the worker."""
    sources = [(f"edgenas.on_device.{module}", (_ON_DEVICE / f"{module}.py").read_text()) for module in SENT_MODULES]
    lines = [f"last = module({name!r}, {source!r})" for name, source in sources]
    return "\n".join([_PROGRAM, *lines, f"last.main({parents!r}, {silence_seconds!r})"]).encode()
