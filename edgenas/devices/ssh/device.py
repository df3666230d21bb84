"""A machine that is reached over SSH."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from edgenas.devices.contract import Deadline
from edgenas.devices.setup import DEFAULT_WORK_DIR
from edgenas.devices.ssh.channel import start_command
from edgenas.devices.ssh.config import SshConnection
from edgenas.devices.ssh.connection import SshRoute, open_route
from edgenas.devices.worker_device import WorkerDevice
from edgenas.errors import UsageError

if TYPE_CHECKING:
    from edgenas.devices.channel import CommandChannel
    from edgenas.devices.profile import DeviceProfile

_CONNECT_SECONDS = 30.0


class SshDevice(WorkerDevice):
    """A machine that is reached over SSH.

    Work folders, and files that are kept for the next connection, lie under
    ``work_dir``, by default ``~/.cache/edgenas``.

    Args:
        profile: A profile of kind ``ssh``.
        silence_seconds: The worker ends when it receives nothing for this long,
            not even a heartbeat.
    """

    connection_type = SshConnection

    def __init__(self, profile: DeviceProfile, *, silence_seconds: float = 60.0) -> None:
        if not isinstance(profile.connection, SshConnection):
            raise UsageError(f"{profile.name}: connection must be of kind ssh")
        parents = [profile.work_dir] if profile.work_dir else [DEFAULT_WORK_DIR, ""]
        super().__init__(profile, parents, silence_seconds)
        self._route: SshRoute = open_route(profile.connection, profile.cli_name, Deadline(_CONNECT_SECONDS))

    @classmethod
    def connect(cls, profile: DeviceProfile) -> Self:
        return cls(profile)

    def _start_command(self, command: str, deadline: Deadline) -> CommandChannel:
        return start_command(self._route.device_transport, command, self.name, deadline)

    def _close_connection(self, *, wait: bool) -> None:
        self._route.close()
