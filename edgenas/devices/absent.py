"""A device that is known from its published latency tables only."""

from __future__ import annotations

from typing import NoReturn

from edgenas.devices.contract import Device
from edgenas.devices.profile import DeviceProfile
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import DeviceError

_KIND = "absent"


class AbsentDevice(Device):
    """A kind of device whose ``connect`` always raises DeviceError. It has no instances."""

    @classmethod
    def connect(cls, profile: DeviceProfile) -> NoReturn:
        raise DeviceError(
            f"{profile.name}: is known from published latency tables only, there is no device to measure on;"
            " give the profile of a device that can be reached, and profile it"
        )


def absent_profile(name: str) -> DeviceProfile:
    """Return the profile of a device that can be searched for and never measured.

    Args:
        name: The device's name.

    Raises:
        UsageError: ``name`` cannot be part of a file name.
    """
    data = {
        "name": name,
        "connection": {"kind": _KIND},
        "runtimes": {"published": {"providers": ["unknown"]}},
        "default": {"runtime": "published"},
        "notes": "Known from published latency tables only.",
    }
    return profile_from_dict(data, name)


def is_absent(profile: DeviceProfile) -> bool:
    """Return whether a profile has no device to connect to, so that nothing can be measured."""
    return profile.connection.kind == _KIND


def check_present(profile: DeviceProfile) -> None:
    """Raise DeviceError when a profile has no device to connect to."""
    if is_absent(profile):
        AbsentDevice.connect(profile)
