"""The address of a device behind adb: the profile's ``connection``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from edgenas.devices.profile import Connection
from edgenas.errors import UsageError

_SERIAL = re.compile(r"[A-Za-z0-9_\[][A-Za-z0-9_.:%\[\]-]{0,254}")


@dataclass(frozen=True)
class AdbConnection(Connection):
    """The ``connection`` of a profile of kind ``adb``.

    ``serial`` is the first word of a line of ``adb devices``: a serial number,
    or ``address:port``. Without it the environment variable ANDROID_SERIAL
    names the device, as for adb itself, or else one device alone must be attached.
    """

    kind: Literal["adb"]
    serial: str | None = None

    def __post_init__(self) -> None:
        if self.serial is not None and not _SERIAL.fullmatch(self.serial):
            raise UsageError(f"connection.serial must be a serial number of adb devices, but got {self.serial!r}")
