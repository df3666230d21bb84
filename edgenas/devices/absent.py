"""A device that is known from its published latency tables only."""

from __future__ import annotations

from typing import NoReturn

from edgenas.devices.contract import Device
from edgenas.devices.profile import DeviceProfile
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import DeviceError

_KIND = "absent"


class AbsentDevice(Device):
    """Connecting always raises DeviceError: there is nothing to measure on. Never instantiated."""

    @classmethod
    def connect(cls, profile: DeviceProfile) -> NoReturn:
        raise DeviceError(
            f"{profile.name}: is known from published latency tables only, there is no device to measure on;"
            " give the profile of a device that can be reached, and profile it"
        )


def absent_profile(name: str) -> DeviceProfile:
    """The profile of a device of this name that can be searched for and never measured. Raises UsageError."""
    data = {
        "name": name,
        "connection": {"kind": _KIND},
        "runtimes": {"published": {"providers": ["unknown"]}},
        "default": {"runtime": "published"},
        "notes": "Known from published latency tables only.",
    }
    return profile_from_dict(data, name)


def is_absent(profile: DeviceProfile) -> bool:
    """Whether there is no device behind the profile, so that nothing can be measured."""
    return profile.connection.kind == _KIND


def check_present(profile: DeviceProfile) -> None:
    """Raises DeviceError when there is no device behind the profile."""
    if is_absent(profile):
        AbsentDevice.connect(profile)
