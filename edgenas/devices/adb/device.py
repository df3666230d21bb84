"""A phone, or another machine, that is reached through adb."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgenas.devices.adb.android import android_facts, parse_properties
from edgenas.devices.adb.channel import AdbChannel
from edgenas.devices.adb.client import find_adb, find_serial
from edgenas.devices.adb.config import AdbConnection
from edgenas.devices.adb.plain_shell import PlainShell
from edgenas.devices.channel import ConnectionLostError
from edgenas.devices.contract import Deadline, check_digest, checked_file_name
from edgenas.devices.facts import complete_facts
from edgenas.devices.self_contained.install import has_python
from edgenas.devices.worker_device import MARK, START_SECONDS, WorkerDevice, transfer_deadline
from edgenas.errors import DeviceError, UsageError
from edgenas.files import read_bytes
from edgenas.shell import format_command

if TYPE_CHECKING:
    from edgenas.devices.channel import CommandChannel
    from edgenas.devices.output import CompletedCommand
    from edgenas.devices.profile import DeviceProfile

DEFAULT_WORK_DIR = "/data/local/tmp/edgenas"  # where adb's shell may write, and run programs
_CONNECT_SECONDS = 60.0
_PROPERTIES = f"echo '{MARK}'; getprop 2>/dev/null"
_FIND_FLOCK = f"echo '{MARK}'; command -v flock"


class AdbDevice(WorkerDevice):
    """A phone, or another machine, that is reached through adb.

    A phone has no Python. With one (the profile's, or that of ``edgenas
    device setup``) the remote worker runs there; without one the phone's own
    shell runs commands, stores files and holds the lock. Work folders, and files that
    are kept for the next connection, lie under ``work_dir``, by default
    ``/data/local/tmp/edgenas``.

    adb waits without end for a phone that hangs, so every wait here has a
    deadline, at which the adb client is killed. adb's server is never ended.

    Args:
        profile: A profile of kind ``adb``.
        silence_seconds: The worker ends when it receives nothing for this long,
            not even a heartbeat.
    """

    connection_type = AdbConnection

    def __init__(self, profile: DeviceProfile, *, silence_seconds: float = 60.0) -> None:
        if not isinstance(profile.connection, AdbConnection):
            raise UsageError(f"{profile.name}: connection must be of kind adb")
        if profile.work_dir is not None and profile.work_dir.startswith("~"):
            raise UsageError(f"{profile.name}: work_dir must be absolute over adb, whose shell has no home folder")
        super().__init__(profile, [profile.work_dir or DEFAULT_WORK_DIR], silence_seconds)
        self._cli_name = profile.cli_name
        self._adb = find_adb()
        self._serial = find_serial(profile.connection, profile.name, Deadline(_CONNECT_SECONDS))
        self._has_python: bool | None = None
        self._plain: PlainShell | None = None

    @classmethod
    def connect(cls, profile: DeviceProfile) -> Self:
        return cls(profile)

    def run(
        self,
        command: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        on_line: Callable[[str], None] | None = None,
    ) -> CompletedCommand:
        if self._finds_python(deadline):
            return super().run(command, deadline=deadline, stdin=stdin, on_line=on_line)
        if command[0] == self._python:
            raise DeviceError(
                f"there is no Python there ({self._python} cannot be run); bring one along with"
                f" {format_command('device', 'setup')} {self._cli_name}, or name one as python in the profile"
            )
        with self._opened_plain_shell(deadline) as plain:
            return plain.run(command, stdin, on_line, deadline)

    def push(self, local: str | Path, name: str, sha256: str | None = None) -> str:
        self._check_open()
        if self._finds_python(Deadline(START_SECONDS)):
            return super().push(local, name, sha256)
        checked_file_name(name)
        local = Path(local)
        data = read_bytes(local)
        check_digest(local, data, sha256)
        deadline = transfer_deadline(len(data))
        with self._opened_plain_shell(deadline) as plain:
            return plain.push(local, data, name, deadline)

    def pull(self, remote: str, local: str | Path) -> None:
        deadline = transfer_deadline(0)
        if self._finds_python(deadline):
            super().pull(remote, local)
            return
        with self._opened_plain_shell(deadline) as plain:
            plain.pull(remote, checked_file_name(remote.removeprefix(f"{plain.folder}/")), Path(local), deadline)

    def facts(self) -> dict[str, Any]:
        facts = super().facts()
        properties = parse_properties(self.run_in_shell(Deadline(START_SECONDS), _PROPERTIES))
        return complete_facts({**facts, **android_facts(properties)}, self.name)

    def locks_without_python(self, deadline: Deadline) -> bool:
        return bool(self.run_in_shell(deadline, _FIND_FLOCK).strip())

    def _take_lock_or_get_holder(self, holder: str) -> str | None:
        deadline = Deadline(START_SECONDS)
        if self._finds_python(deadline):
            return super()._take_lock_or_get_holder(holder)
        with self._opened_plain_shell(deadline) as plain:
            return plain.take_lock_or_get_holder(holder, deadline)

    def _release_lock(self) -> None:
        if self._plain is None:
            super()._release_lock()
            return
        self._plain.release_lock()

    def _finds_python(self, deadline: Deadline) -> bool:
        """Return whether the device has a Python that works; without one the profile may still name it."""
        self._check_open()
        if self._has_python is None:
            self._has_python = has_python(self, self._resolve_python(deadline), deadline)
        return self._has_python

    @contextlib.contextmanager
    def _opened_plain_shell(self, deadline: Deadline) -> Iterator[PlainShell]:
        """Give the plain shell, which is started at the first call; disconnect when the phone is lost."""
        self._check_open()
        try:
            if self._plain is None:
                self._plain = PlainShell(self._start_command, self._serial, self.name, self.work_dir, deadline)
            yield self._plain
        except ConnectionLostError as error:
            self._disconnect(str(error))
            raise

    def _start_command(self, command: str, deadline: Deadline) -> CommandChannel:
        deadline.check(f"{self.name}: starting a command")
        return AdbChannel(self._adb, self._serial, command)

    def _close_connection(self, *, wait: bool) -> None:
        if self._plain is not None:
            self._plain.close(wait=wait)
            self._plain = None
