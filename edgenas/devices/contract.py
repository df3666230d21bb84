"""What a device is: run, push, pull, facts, lock, close."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from edgenas.devices.profile import Connection, DeviceProfile
from edgenas.errors import DeviceError, UsageError
from edgenas.files import digest

STDERR_KEPT = 64 * 1024
MOST_OUTPUT = 16 * 2**20  # bytes of one line, or of all where no lines are asked for; no command here says so much
_LOCK_POLL_SECONDS = 0.25
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")


class Deadline:
    """A moment after which nobody waits any longer; passed down, never renewed on the way.

    ``cancel`` brings it forward to now, from any thread: whoever waits ends
    within half a second.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._cancelled = threading.Event()

    @property
    def left(self) -> float:
        """Seconds left, never below zero."""
        return 0.0 if self._cancelled.is_set() else max(0.0, self._end - time.monotonic())

    def cancel(self) -> None:
        """End the waiting now."""
        self._cancelled.set()

    def check(self, what: str) -> None:
        """Raises DeviceError naming ``what`` when no time is left."""
        if self._cancelled.is_set():
            raise DeviceError(f"{what}: given up before it ended")
        if self.left <= 0:
            raise DeviceError(f"{what}: did not end within {self.seconds:g} s; allow more time or check the device")


@dataclass(frozen=True)
class Completed:
    """How a command ended. ``exit_status`` is negative for a signal; ``stderr`` is its last 64 KiB."""

    exit_status: int
    stdout: str
    stderr: str


class Device(ABC):
    """A live connection to a machine that models are run on.

    Ownership: whoever connects closes; a device is a context manager, and
    ``close`` may be called again and from ``__exit__`` after a failure. It ends
    every command that still runs and removes the work folder. One command runs
    at a time, and one thread uses a device, except for ``Deadline.cancel``.

    Errors: DeviceError when the device vanishes, does not end within its
    deadline or cannot store a file; UsageError for a file name that is not
    plain. A command that fails is no error: its exit status says so.

    Commands are argument lists that no shell sees. They run in the work
    folder. Their standard input stays open until they end, so that a command
    which waits for its end notices when this side dies.
    """

    connection_type: ClassVar[type[Connection]] = Connection
    name: str
    _locks_held = 0

    @classmethod
    @abstractmethod
    def connect(cls, profile: DeviceProfile) -> Self:
        """Connect to the device of a profile, whose ``connection`` is of this class's ``connection_type``."""

    @property
    @abstractmethod
    def python(self) -> str:
        """The interpreter that runs the agent there."""

    @abstractmethod
    def run(
        self,
        command: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        on_line: Callable[[str], None] | None = None,
    ) -> Completed:
        """Run a command to its end.

        Each line of standard output is given to ``on_line``, without its line
        feed, as soon as it is there, and is then not kept: ``stdout`` of the
        answer is empty. Without ``on_line`` it is the whole output. An exception
        in ``on_line``, like any other, ends the command there before it is
        passed on.
        """

    @abstractmethod
    def push(self, local: Path, name: str, sha256: str | None = None) -> str:
        """Store a file in the work folder under ``name``, whole or not at all; returns its path there.

        Not sent again when an equal file lies there. ``sha256``: of its content,
        where it is known, so that nothing else is stored. Raises UsageError when
        ``local`` cannot be read, or would have to be sent and has another content,
        or ``name`` is not a plain file name.
        """

    @abstractmethod
    def pull(self, remote: str, local: Path) -> None:
        """Fetch a file of the work folder, by its name or the path that ``push`` gave, whole or not at all."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What identifies the machine: the keys of ``facts.FACTS``, None where it does not say.

        ``missing`` lists those keys; ``synthetic`` is true when its numbers are made up.
        """

    @contextlib.contextmanager
    def lock(self, deadline: Deadline) -> Iterator[None]:
        """Have the device to oneself: one edgenas at a time, from whichever machine, measures there.

        The lock is one of the whole machine, whatever profile or user reaches
        it. It may be taken again by who holds it, and ends with the
        connection. Raises DeviceError naming the holder when it is not free
        before the deadline.
        """
        if not self._locks_held:
            self._await_lock(deadline)
        self._locks_held += 1
        try:
            yield
        finally:
            self._locks_held -= 1
            if not self._locks_held:
                self._release_lock()

    def _await_lock(self, deadline: Deadline) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        mine = f"{platform.node() or 'unnamed'}, process {os.getpid()}, since {now}"
        while holder := self._take_lock(mine):
            if deadline.left <= 0:
                raise DeviceError(f"{self.name}: is taken by {holder}; wait until that has ended, or end it there")
            time.sleep(min(_LOCK_POLL_SECONDS, deadline.left))

    @abstractmethod
    def _take_lock(self, holder: str) -> str | None:
        """Take the lock at once and note its holder: None, or who has it."""

    @abstractmethod
    def _release_lock(self) -> None:
        """Let go of the lock; harmless where the device is gone or closed."""

    @abstractmethod
    def close(self) -> None:
        """End all commands, let go of the lock and remove the work folder."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_content(local: Path, data: bytes, sha256: str | None) -> None:
    """Raises UsageError when the content of a file is not the one that is known."""
    if sha256 is not None and digest(data) != sha256:
        raise UsageError(f"{local}: was changed since it was looked at; start again when nothing writes to it")


def check_name(name: str) -> str:
    """``name`` if it is a plain file name; raises UsageError when it could leave the work folder."""
    if not _FILE_NAME.fullmatch(name):
        raise UsageError(
            f"file name {name!r} on a device must be plain: up to 200 letters, digits and _ . + -,"
            " the first no . + or -"
        )
    return name


class LineSplitter:
    """Cuts a byte stream into lines of text as they arrive; undecodable bytes are shown as U+FFFD.

    Raises DeviceError for a line that does not end.
    """

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = bytearray()

    def feed(self, data: bytes) -> None:
        """Take the next bytes and hand on every line that they complete."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._rest += line
            whole, self._rest = self._rest, bytearray()
            self._on_line(whole.decode(errors="replace"))
        self._rest += rest
        _check_size(self._rest)

    def finish(self) -> None:
        """Hand on what is left when the stream ends without a line feed."""
        if self._rest:
            self._on_line(self._rest.decode(errors="replace"))
            self._rest = bytearray()


def _check_size(said: bytearray) -> None:
    if len(said) > MOST_OUTPUT:
        raise DeviceError(f"a command there says more than {MOST_OUTPUT >> 20} MiB without an end; check the device")


class Output:
    """What a command says, as it comes: lines for ``on_line`` or the whole, and the end of standard error."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._whole = bytearray()
        self._errors = bytearray()
        self._lines = LineSplitter(on_line) if on_line else None

    def take(self, data: bytes) -> None:
        """The next piece of standard output."""
        if self._lines:
            self._lines.feed(data)
        else:
            self._whole += data
            _check_size(self._whole)

    def take_errors(self, data: bytes) -> None:
        """The next piece of standard error."""
        self._errors += data
        del self._errors[:-STDERR_KEPT]

    def completed(self, exit_status: int) -> Completed:
        """The end of it; hands on a last line that has no line feed."""
        if self._lines:
            self._lines.finish()
        return Completed(exit_status, self._whole.decode(errors="replace"), self._errors.decode(errors="replace"))
