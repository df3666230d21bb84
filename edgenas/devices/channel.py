"""The streams of a command on a device, whatever carries them, and running a short command to its end."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from edgenas.devices.answers import MAX_SHELL_BYTES
from edgenas.devices.contract import Deadline
from edgenas.devices.output import last_line
from edgenas.errors import DeviceError

SILENCE_SECONDS = 10.0  # a machine that sends nothing for this long is given up
SHELL_SECONDS = 60.0  # a login shell may take this long to start a command
POLL_SECONDS = 0.5
REAP_SECONDS = 0.002
CHUNK_BYTES = 1 << 16
STDERR_KEPT_BYTES = 4096
_MOST_CHUNKS = 64


class CommandChannel(Protocol):
    """A running command's three streams and its end. paramiko's channel is one.

    ``recv``, ``recv_stderr`` and ``send`` wait as long as ``settimeout`` says,
    then raise TimeoutError. They raise OSError when the connection is gone.
    """

    @property
    def exit_status(self) -> int:
        """The exit status when it is ready; -1 where the connection broke."""

    def settimeout(self, seconds: float) -> None:
        """Set how long calls wait."""

    def send(self, data: bytes) -> int:
        """Send some of the data to standard input; return how many bytes."""

    def recv(self, size: int) -> bytes:
        """Return what has come on standard output, nothing at its end."""

    def recv_stderr_ready(self) -> bool:
        """Return whether anything has come on standard error."""

    def recv_stderr(self, size: int) -> bytes:
        """Return what has come on standard error, nothing at its end."""

    def shutdown_write(self) -> None:
        """End standard input."""

    def exit_status_ready(self) -> bool:
        """Return whether the command has ended or the connection is gone."""

    def close(self) -> None:
        """Close all streams; may be called again."""


StartCommand = Callable[[str, Deadline], CommandChannel]  # of a command line that is quoted for the device's sh


class ConnectionLostError(DeviceError):
    """The connection can no longer be used."""


def lost_error(name: str, reason: str = "") -> ConnectionLostError:
    """Return the error of a connection that broke."""
    detail = f" ({reason})" if reason else ""
    return ConnectionLostError(f"{name}: the connection was lost{detail}; check the device and try again")


def silence_error(name: str, seconds: float = SILENCE_SECONDS) -> ConnectionLostError:
    """Return the error of a device that sent nothing for this long."""
    return ConnectionLostError(
        f"{name}: gave no sign of life for {seconds:g} s; check the device and its network, and try again"
    )


def run_in_shell(
    start: StartCommand, name: str, command: Sequence[str], mark: str, deadline: Deadline, stdin: bytes = b""
) -> str:
    """Run a command in the login shell and return what it prints after its first ``mark``.

    The login shell may print anything before the mark.

    Args:
        start: Starts a command line on the device.
        name: The device's name in messages.
        command: A command that ends by itself, on one line that every login
            shell can read. It prints little before it has read its input.
        mark: The text that the command prints before its output.
        deadline: The time until the command must have ended.
        stdin: Its standard input, which then ends.

    Raises:
        DeviceError: The device is lost or silent, the deadline passed, or the login shell runs no commands or prints
            without end.
    """
    channel = start(shlex.join(command), deadline)
    try:
        if stdin:
            _send_all(channel, stdin, name, deadline)
        stdout, stderr = _read_to_end(channel, name, deadline)
    finally:
        channel.close()
    if channel.exit_status < 0:
        raise lost_error(name)
    before, found_mark, after = stdout.decode(errors="replace").partition(mark)
    if not found_mark:
        reason = last_line(stderr.decode(errors="replace")) or last_line(before) or f"status {channel.exit_status}"
        raise DeviceError(f"{name}: its login shell runs no commands ({reason}); choose a user who may run some there")
    return after


def _send_all(channel: CommandChannel, data: bytes, name: str, deadline: Deadline) -> None:
    """Send a command's standard input; one that ends before it has read all of it says why on its other streams."""
    rest, quiet_seconds = memoryview(data), 0.0
    while rest:
        deadline.check(f"{name}: a command")
        try:
            rest = rest[channel.send(bytes(rest[:CHUNK_BYTES])) :]
            quiet_seconds = 0.0
        except TimeoutError:
            quiet_seconds += POLL_SECONDS
            if quiet_seconds >= SHELL_SECONDS:
                raise silence_error(name, SHELL_SECONDS) from None
        except OSError:
            return
    with contextlib.suppress(OSError):
        channel.shutdown_write()


def _read_to_end(channel: CommandChannel, name: str, deadline: Deadline) -> tuple[bytearray, bytearray]:
    """Return standard output, and the end of standard error, of a command that ended."""
    stdout, stderr, quiet_seconds, at_end = bytearray(), bytearray(), 0.0, False
    while not (at_end and channel.exit_status_ready()):
        deadline.check(f"{name}: a command")
        if quiet_seconds >= SHELL_SECONDS:
            raise silence_error(name, SHELL_SECONDS)
        if drain_stderr_into(channel, stderr):
            quiet_seconds = 0.0
        try:
            data = channel.recv(CHUNK_BYTES)
        except TimeoutError:
            quiet_seconds += POLL_SECONDS
            continue
        if data:
            stdout += data
            check_shell_output_size(stdout, name)
            quiet_seconds = 0.0
        else:
            at_end = True
            time.sleep(REAP_SECONDS)
            quiet_seconds += REAP_SECONDS
    drain_stderr_into(channel, stderr)
    return stdout, stderr


def drain_stderr_into(channel: CommandChannel, stderr: bytearray) -> bool:
    """Read the standard error that has arrived, so that it cannot fill up; keep its end and return if any came."""
    for number in range(_MOST_CHUNKS):
        if not channel.recv_stderr_ready():
            return number > 0
        data = channel.recv_stderr(CHUNK_BYTES)
        if not data:
            return number > 0
        stderr += data
        del stderr[:-STDERR_KEPT_BYTES]
    return True


def check_shell_output_size(printed: bytearray, name: str) -> None:
    """Raise DeviceError for more than a login shell may print."""
    if len(printed) > MAX_SHELL_BYTES:
        raise DeviceError(
            f"{name}: printed more than {MAX_SHELL_BYTES >> 20} MiB where a short answer was due;"
            " look at what its login shell prints"
        )
