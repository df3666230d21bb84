"""The contract of a device: run commands, push and pull files, read facts, lock, close."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from edgenas.devices.output import CompletedCommand
from edgenas.devices.profile import Connection, DeviceProfile
from edgenas.errors import DeviceError, UsageError, one_line
from edgenas.files import sha256_hex

_log = logging.getLogger("edgenas")
_LOCK_POLL_SECONDS = 0.25
_QUIET_SECONDS = 1.0  # nothing is said of a shorter wait for the lock
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")


class Deadline:
    """A point in time at which waiting ends. It is passed down through calls and never renewed on the way.

    Args:
        seconds: Time from now.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._cancelled = threading.Event()

    @property
    def seconds_left(self) -> float:
        """Seconds left, never below zero."""
        return 0.0 if self._cancelled.is_set() else max(0.0, self._end - time.monotonic())

    def expire_now(self) -> None:
        """Bring the deadline forward to now, from any thread; calls that wait for it end within half a second."""
        self._cancelled.set()

    def check(self, what: str) -> None:
        """Raise DeviceError when no time is left. ``what`` names the work in the message."""
        if self._cancelled.is_set():
            raise DeviceError(f"{what}: cancelled before it ended")
        if self.seconds_left <= 0:
            raise DeviceError(f"{what}: did not end within {self.seconds:g} s; allow more time or check the device")


class Device(ABC):
    """A live connection to a machine that runs models.

    Ownership: the code that connects also closes. A device is a context
    manager. ``close`` may be called again, and after a failure. It ends every
    running command and removes the work folder. One command runs at a time.
    One thread uses a device, except for ``Deadline.expire_now``.

    Errors: DeviceError when the device vanishes, misses a deadline or cannot
    store a file; UsageError for a file name with a folder or odd characters in
    it. A command that fails raises nothing: its exit status says so.

    Commands are argument lists and pass through no shell. They run in the work
    folder. Their standard input stays open until they end, so that a command
    that waits for its end notices when the host dies.
    """

    connection_type: ClassVar[type[Connection]] = Connection
    name: str
    _locks_held = 0

    @classmethod
    @abstractmethod
    def connect(cls, profile: DeviceProfile) -> Self:
        """Connect to the device of a profile.

        Args:
            profile: Its ``connection`` is of this class's ``connection_type``.

        Raises:
            DeviceError: The device cannot be reached.
        """

    @property
    @abstractmethod
    def python(self) -> str:
        """The Python interpreter on the device that runs the agent."""

    @abstractmethod
    def run(
        self,
        command: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        on_line: Callable[[str], None] | None = None,
    ) -> CompletedCommand:
        """Run a command to its end.

        Args:
            command: The program and its arguments.
            deadline: The command is killed at this time.
            stdin: Sent to its standard input, which then stays open.
            on_line: Called with each line of standard output as it arrives,
                without its line feed. Lines are then not kept.

        Returns:
            Its exit status and output; ``stdout`` is empty with ``on_line``.

        Raises:
            DeviceError: The device vanished or the deadline passed.
            Exception: Any exception of ``on_line``, after the command was ended.
        """

    @abstractmethod
    def push(self, local: str | Path, name: str, sha256: str | None = None) -> str:
        """Store a file in the work folder, whole or not at all. A file that the device has already is not sent.

        Args:
            local: The file on this machine.
            name: Its name in the work folder.
            sha256: The digest that its content must have, if known.

        Returns:
            The path on the device.

        Raises:
            UsageError: ``local`` cannot be read or its content differs from
                ``sha256``, or ``name`` is not a plain file name.
            DeviceError: The device cannot store it.
        """

    @abstractmethod
    def pull(self, remote: str, local: str | Path) -> None:
        """Fetch a file of the work folder, whole or not at all.

        Args:
            remote: Its name, or the path that ``push`` returned.
            local: The file to write on this machine.

        Raises:
            DeviceError: The device has no such file.
        """

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what identifies the machine.

        Returns:
            The keys of ``facts.FACTS`` with None for unknown values;
            ``missing`` lists the unknown ones, ``synthetic`` is true when the
            device's numbers are made up. ``facts.complete_facts`` checks them.

        Raises:
            DeviceError: The device says what cannot be.
        """

    @contextlib.contextmanager
    def lock(self, deadline: Deadline) -> Iterator[None]:
        """Hold the lock of the whole machine: one edgenas at a time measures on it.

        The lock is the same for all profiles, users and hosts. Its holder may
        take it again. It ends with the connection. A wait of more than a
        second is a warning in the log ``edgenas`` that names the holder;
        without a log of the caller's own it is a line on standard error.

        Args:
            deadline: The time until which to wait for the lock.

        Raises:
            DeviceError: Another holder, named in the message, still has it at the deadline.
        """
        if not self._locks_held:
            self._wait_for_lock(deadline)
        self._locks_held += 1
        try:
            yield
        finally:
            self._locks_held -= 1
            if not self._locks_held:
                self._release_lock()

    def _wait_for_lock(self, deadline: Deadline) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        us = f"{platform.node() or 'unnamed'}, process {os.getpid()}, since {now}"
        started, named = time.monotonic(), ""
        while holder := self._take_lock_or_get_holder(us):
            holder = one_line(holder)
            taken, seconds_left = f"{self.name}: is taken by {holder}", deadline.seconds_left
            if seconds_left <= 0:
                raise DeviceError(f"{taken}; wait until that has ended, or end it there")
            if holder != named and time.monotonic() - started >= _QUIET_SECONDS:
                _log.warning("%s; waiting %.0f s at most until that has ended", taken, seconds_left)
                named = holder
            time.sleep(min(_LOCK_POLL_SECONDS, seconds_left))

    @abstractmethod
    def _take_lock_or_get_holder(self, holder: str) -> str | None:
        """Take the lock without waiting and note ``holder`` in it; return None, or the other holder's note."""

    @abstractmethod
    def _release_lock(self) -> None:
        """Release the lock. Raise nothing when the device is gone or closed."""

    @abstractmethod
    def close(self) -> None:
        """End all commands, release the lock and remove the work folder."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_digest(local: Path, data: bytes, sha256: str | None) -> None:
    """Raise UsageError when a file's content differs from a known digest."""
    if sha256 is not None and sha256_hex(data) != sha256:
        raise UsageError(f"{local}: has changed since its digest was taken; start again when nothing writes to it")


def checked_file_name(name: str) -> str:
    """Return ``name``. Raise UsageError when it is not a plain file name and could leave the work folder."""
    if not _FILE_NAME.fullmatch(name):
        raise UsageError(
            f"file name {name!r} on a device must be plain: up to 200 letters, digits and _ . + -,"
            " the first no . + or -"
        )
    return name
