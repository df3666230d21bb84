"""This machine as a device whose commands have a low priority, beside other work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from edgenas.devices import CompletedCommand, Connection, Deadline, DeviceProfile
from edgenas.devices.local import LocalDevice


@dataclass(frozen=True)
class NicedConnection(Connection):
    """``niceness`` is from 0, the usual priority, to 19, the lowest."""

    niceness: int = 10


class NicedDevice(LocalDevice):
    """A local device that runs its commands with ``nice``."""

    connection_type = NicedConnection

    def __init__(self, profile: DeviceProfile) -> None:
        super().__init__(profile)
        assert isinstance(profile.connection, NicedConnection)
        self._niceness = profile.connection.niceness

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
        niced = ["nice", "-n", str(self._niceness), *command]
        return super().run(niced, deadline=deadline, stdin=stdin, on_line=on_line)
