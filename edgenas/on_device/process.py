"""A command's process and its three pipes. Also runs on devices: Python 3.8, standard library only."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

CHUNK = 64 * 1024
_POLL_SECONDS = 1.0  # pipes report at once; only pipes that a left-behind child holds open must be polled for
_REAP_SECONDS = 0.001


class Process:
    """A running command, whose three pipes are fed and drained at once, so that none can fill up and block it.

    The process has a group of its own, which is killed when the process ends in any
    way. Its pipes are registered with ``selector``; their data is the function to call
    when one is ready, which the selector's owner does. Without ``environment``
    it has this process's variables. Raises
    OSError when the command cannot be started.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        command: Sequence[str],
        folder: str,
        on_output: Callable[[bytes], None],
        on_errors: Callable[[bytes], None],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(  # noqa: S603 - an argument list, no shell
            list(command),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            cwd=folder,
            env=environment,
            start_new_session=True,
            bufsize=0,
        )
        self._selector = selector
        self._stdin = bytearray()
        self._readers: dict[IO[bytes], Callable[[bytes], None]] = {}
        for stream, on_data in ((self._process.stdout, on_output), (self._process.stderr, on_errors)):
            assert stream is not None
            self._readers[stream] = on_data
        for stream in (self._process.stdin, *self._readers):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
        self.resume_reading()

    @property
    def poll_interval_s(self) -> float:
        """Seconds to wait for its pipes before asking whether it has ended."""
        return _POLL_SECONDS if self._readers else _REAP_SECONDS

    @property
    def exit_status(self) -> int:
        """The exit status, negative for a signal; known after ``kill_and_close``."""
        return int(self._process.returncode)

    def queue_stdin(self, data: bytes) -> None:
        """Send data to its standard input, which stays open afterwards as the sign that this side lives."""
        self._stdin += data
        stdin = self._process.stdin
        if self._stdin and stdin not in _registered_streams(self._selector):
            self._selector.register(_require_stream(stdin), selectors.EVENT_WRITE, self._write_stdin)

    def pause_reading(self) -> None:
        """Leave its output in the pipes until ``resume_reading``."""
        for stream in self._readers:
            if stream in _registered_streams(self._selector):
                self._selector.unregister(stream)

    def resume_reading(self) -> None:
        """Read its output again."""
        for stream in self._readers:
            if stream not in _registered_streams(self._selector):
                self._selector.register(
                    stream, selectors.EVENT_READ, lambda stream=stream: self._forward_output(stream)
                )

    def has_ended(self) -> bool:
        """Return whether it has ended and all its output was read."""
        try:
            # Without reaping it, so that its number cannot become another's.
            ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        except ChildProcessError:
            ended = True
        if ended and self._readers:
            # A child left behind would hold the pipes open forever.
            _kill_process_group(self._process.pid)
        return ended and not self._readers

    def kill_and_close(self) -> None:
        """Kill what is left of the process group, reap the process, close its pipes; may be called again."""
        if self._process.returncode is None:
            _kill_process_group(self._process.pid)
            self._process.wait()
        self._readers.clear()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            self._unregister(stream)
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _forward_output(self, stream: IO[bytes]) -> None:
        if stream not in self._readers:
            return
        data = os.read(stream.fileno(), CHUNK)
        if data:
            self._readers[stream](data)
        else:
            self._unregister(stream)
            del self._readers[stream]

    def _write_stdin(self) -> None:
        stdin = _require_stream(self._process.stdin)
        if stdin.closed:
            return
        try:
            del self._stdin[: os.write(stdin.fileno(), self._stdin[:CHUNK])]
        except BrokenPipeError:
            self._stdin.clear()
        if not self._stdin:
            self._unregister(stdin)

    def _unregister(self, stream: IO[bytes]) -> None:
        if not stream.closed and stream in _registered_streams(self._selector):
            self._selector.unregister(stream)


def _require_stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _registered_streams(selector: selectors.BaseSelector) -> set[Any]:
    return {key.fileobj for key in (selector.get_map() or {}).values()}


def _kill_process_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
