"""The output of a command: split into lines as it arrives or collected, within a bound of memory."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

from edgenas.devices.answers import MAX_OUTPUT_BYTES
from edgenas.errors import DeviceError, one_line

STDERR_KEPT_BYTES = 64 * 1024


@dataclass(frozen=True)
class CompletedCommand:
    """The end of a command.

    ``exit_status`` is negative for a signal. ``stderr`` is the last 64 KiB of standard error.
    """

    exit_status: int
    stdout: str
    stderr: str

    @property
    def was_killed(self) -> bool:
        """Whether it was killed by SIGKILL, which is what the kernel does where memory runs out."""
        return self.exit_status == -signal.SIGKILL

    @property
    def failure(self) -> str:
        """Why the command failed: the signal that killed it, the last line of standard error, else the exit status."""
        if self.exit_status < 0:
            likely = ", most likely by the kernel for want of memory" if self.was_killed else ""
            return f"killed by {_signal_name(-self.exit_status)}{likely}"
        return last_line(self.stderr) or f"status {self.exit_status}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def last_line(output: str) -> str:
    """Return the last line of a command's output as a short quote, empty without one."""
    return one_line(output.strip().rpartition("\n")[2])


class LineSplitter:
    """Calls ``on_line`` with each line of a byte stream, decoded as UTF-8 with U+FFFD for invalid bytes."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._unfinished = bytearray()

    def feed(self, data: bytes) -> None:
        """Add bytes to the stream. Raise DeviceError for a line of more than 16 MiB."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            complete, self._unfinished = self._unfinished + line, bytearray()
            self._on_line(complete.decode(errors="replace"))
        self._unfinished += rest
        _check_output_size(self._unfinished)

    def flush(self) -> None:
        """End the stream, whose last line may have no line feed."""
        if self._unfinished:
            self._on_line(self._unfinished.decode(errors="replace"))
            self._unfinished = bytearray()


class CommandOutput:
    """Collects what a running command prints.

    With ``on_line`` each line of standard output goes there and is not kept;
    without it all of standard output is kept. Of standard error the end is kept.
    """

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._lines = LineSplitter(on_line) if on_line else None

    def add_stdout(self, data: bytes) -> None:
        """Add bytes of standard output. Raise DeviceError for more than 16 MiB in one line or without lines."""
        if self._lines:
            self._lines.feed(data)
        else:
            self._stdout += data
            _check_output_size(self._stdout)

    def add_stderr(self, data: bytes) -> None:
        """Add bytes of standard error."""
        self._stderr += data
        del self._stderr[:-STDERR_KEPT_BYTES]

    def to_completed_command(self, exit_status: int) -> CompletedCommand:
        """Return the completed command, after a last line without a line feed went to ``on_line``."""
        if self._lines:
            self._lines.flush()
        stdout, stderr = (data.decode(errors="replace") for data in (self._stdout, self._stderr))
        return CompletedCommand(exit_status, stdout, stderr)


def _check_output_size(kept: bytearray) -> None:
    if len(kept) > MAX_OUTPUT_BYTES:
        raise DeviceError(
            f"a command on the device printed more than {MAX_OUTPUT_BYTES >> 20} MiB without an end; check the device"
        )
