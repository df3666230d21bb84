"""Connecting to the device of a profile."""

from __future__ import annotations

from edgenas.devices.contract import Device
from edgenas.devices.profile import DeviceProfile
from edgenas.registry import DEVICES


def connect_device(profile: DeviceProfile) -> Device:
    """Connect to the device of a profile. The caller closes it.

    Args:
        profile: From ``load_profile``.

    Returns:
        The connected device, a context manager.

    Raises:
        DeviceError: The device cannot be reached; the message says why and what to do.

    Example:
        >>> from edgenas import connect_device, load_profile
        >>> with connect_device(load_profile("localhost")) as device:
        ...     device.facts()["synthetic"]
        False
    """
    device: Device = DEVICES.load(profile.connection.kind, profile.name).connect(profile)
    return device
