"""Connecting through the ProxyCommand of the user's ssh configuration, which is run as ssh runs it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
from typing import Any

_END_SECONDS = 2.0


class ProxyCommandPipes:
    """A running ProxyCommand, whose standard input and output stand in for a socket.

    Its standard error is inherited, because it may tell the user what to do.
    Any thread may call any method.

    Args:
        command: The command line.
        silence_seconds: Sending fails when nothing can be sent for this long.
    """

    def __init__(self, command: str, silence_seconds: float) -> None:
        self._process = _start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._input, False)
        os.set_blocking(self._output, False)
        self._silence_seconds = silence_seconds
        self._timeout_seconds: float | None = None
        self._using = threading.Lock()  # held while a pipe is used, which must not be closed then
        self._closed = False  # read by paramiko, too

    def settimeout(self, seconds: float | None) -> None:
        """Let ``recv`` wait this long, for ever with None."""
        self._timeout_seconds = seconds

    def send(self, data: bytes) -> int:
        """Send as much as the command takes now, and return how much that was.

        Raises:
            OSError: It takes nothing, or has ended.
        """
        if not _is_ready(self._input, select.POLLOUT, self._silence_seconds):
            raise BrokenPipeError("the ProxyCommand takes no more data")
        with self._using:
            return 0 if self._closed else os.write(self._input, data)

    def recv(self, size: int) -> bytes:
        """Return what has come, at most this many bytes; nothing at the end.

        Raises:
            TimeoutError: Nothing came in time.
        """
        if not _is_ready(self._output, select.POLLIN, self._timeout_seconds):
            raise TimeoutError
        with self._using:
            return b"" if self._closed else os.read(self._output, size)

    def exit_status(self) -> int | None:
        """Return the status with which the command ended by itself, None if it did not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        status = self._process.returncode
        return status if status is None or status >= 0 else None

    def close(self) -> None:
        """End the command; may be called again."""
        with self._using:
            if self._closed:
                return
            self._closed = True
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                stream.close()
        self._process.send_signal(signal.SIGHUP)
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def receive_socket(command: str, seconds: float) -> socket.socket:
    """Run a ProxyCommand that passes a connected socket to its standard output, and return this socket.

    Args:
        command: The command line.
        seconds: The time until the socket must have come.

    Raises:
        OSError: The command passes none.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = _start(command, stdin=theirs, stdout=theirs)
        try:
            ours.settimeout(seconds)
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        finally:
            process.kill()
            process.wait()
    if not descriptors:
        raise ConnectionError("its ProxyCommand passed no socket, which ProxyUseFdpass asks for")
    return socket.socket(fileno=descriptors[0])


def _start(command: str, **streams: Any) -> subprocess.Popen[bytes]:
    """Start a command line of the user's own configuration in the user's shell."""
    shell = os.environ.get("SHELL") or "/bin/sh"
    return subprocess.Popen([shell, "-c", f"exec {command}"], bufsize=0, **streams)  # noqa: S603 - as ssh does it


def _is_ready(descriptor: int, event: int, seconds: float | None) -> bool:
    """Return whether a pipe can be used, or has ended, within this time."""
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(None if seconds is None else 1000 * seconds))
