"""A command on a device, through a process of the adb client."""

from __future__ import annotations

import os
import re
import select
import subprocess
import threading
import time
from typing import IO

from edgenas.devices.channel import CHUNK_BYTES, POLL_SECONDS

# adb ends with status 0 when adbd was killed. So the device says on standard error how the command ended.
_REPORT = "\ns=$?; printf '\\nedgenas: status %d\\n' $s >&2; exit $s"
_REPORTED = re.compile(rb"\nedgenas: status (\d{1,3})\n\Z")
_MOST_REPORTED_BYTES = len("\nedgenas: status 255\n")


class AdbChannel:
    """A command of the device's sh and its streams. Any thread may send; one thread does all else.

    ``exit_status`` is -1 where the device did not say how the command ended:
    the connection broke, or adbd was killed.

    Args:
        adb: The adb program.
        serial: The device.
        command: The command line, quoted for sh.
    """

    def __init__(self, adb: str, serial: str, command: str) -> None:
        pipe = subprocess.PIPE
        # -T: no terminal. Else bytes change on the way; and exec-out would not send standard input.
        self._process = subprocess.Popen(  # noqa: S603 - an argument list, no shell here
            [adb, "-s", serial, "shell", "-T", command + _REPORT],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for edgenas, which ends the command in its own way
        )
        self._streams = [
            _non_blocking(each) for each in (self._process.stdin, self._process.stdout, self._process.stderr)
        ]
        self._closing = threading.Lock()
        self._seconds = POLL_SECONDS
        self._held, self._stderr_ended = bytearray(), False  # of standard error: its end may be the report
        self._status: int | None = None

    @property
    def exit_status(self) -> int:
        """The exit status when it is ready; -1 where the device did not say it."""
        return -1 if self._status is None else self._status

    def settimeout(self, seconds: float) -> None:
        """Set how long calls wait."""
        self._seconds = seconds

    def send(self, data: bytes) -> int:
        """Send some of the data to standard input; return how many bytes."""
        stdin = self._streams[0]
        self._wait_for(stdin, select.POLLOUT, self._seconds)
        with self._closing:
            if stdin.closed:
                raise BrokenPipeError("the channel was closed")
            try:
                return os.write(stdin.fileno(), data[:CHUNK_BYTES])
            except BlockingIOError:  # another thread has filled it
                return 0

    def recv(self, size: int) -> bytes:
        """Return what has come on standard output, nothing at its end."""
        stdout = self._streams[1]
        self._wait_for(stdout, select.POLLIN, self._seconds)
        return os.read(stdout.fileno(), size)

    def recv_stderr_ready(self) -> bool:
        """Return whether anything has come on standard error."""
        self._read_stderr(0.0)
        return self._free_stderr_bytes > 0

    def recv_stderr(self, size: int) -> bytes:
        """Return what has come on standard error, nothing at its end."""
        end = time.monotonic() + self._seconds
        while not self._free_stderr_bytes and not self._stderr_ended:
            if not self._read_stderr(max(0.0, end - time.monotonic())):
                raise TimeoutError
        data = bytes(self._held[: min(size, self._free_stderr_bytes)])
        del self._held[: len(data)]
        return data

    def shutdown_write(self) -> None:
        """End standard input."""
        with self._closing:
            self._streams[0].close()

    def exit_status_ready(self) -> bool:
        """Return whether adb has ended and all of standard error was read."""
        self._read_stderr(0.0)
        return self._stderr_ended and self._process.poll() is not None

    def close(self) -> None:
        """Kill the adb client, whose command then ends; may be called again."""
        self._process.kill()
        self._process.wait()
        with self._closing:
            for stream in self._streams:
                stream.close()

    @property
    def _free_stderr_bytes(self) -> int:
        """The number of bytes that are no part of the report."""
        return len(self._held) if self._stderr_ended else max(0, len(self._held) - _MOST_REPORTED_BYTES)

    def _read_stderr(self, seconds: float) -> bool:
        """Read what comes on standard error within some seconds; return whether anything came, or its end."""
        stderr = self._streams[2]
        if self._stderr_ended or stderr.closed:
            return True
        try:
            self._wait_for(stderr, select.POLLIN, seconds)
        except TimeoutError:
            return False
        data = os.read(stderr.fileno(), CHUNK_BYTES)
        self._held += data
        if not data:
            self._stderr_ended = True
            if reported := _REPORTED.search(self._held):
                self._status = int(reported[1])
                del self._held[reported.start() :]
        return True

    def _wait_for(self, stream: IO[bytes], event: int, seconds: float) -> None:
        """Wait until a stream is ready. Raise TimeoutError when it is not, OSError when the channel is closed."""
        poll = select.poll()
        try:
            poll.register(stream.fileno(), event)
        except ValueError:
            raise BrokenPipeError("the channel was closed") from None
        if not poll.poll(seconds * 1000):
            raise TimeoutError


def _non_blocking(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    os.set_blocking(stream.fileno(), False)
    return stream
