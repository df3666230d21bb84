"""Kinds of connection by name: those that edgenas has, and those that installed packages add."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

from edgenas.devices.contract import Device
from edgenas.devices.profile import DeviceProfile
from edgenas.errors import UsageError
from edgenas.files import suggest_nearest

ENTRY_POINTS = "edgenas.devices"
_BUILT_IN = {
    "local": ("edgenas.devices.local", "LocalDevice"),
    "ssh": ("edgenas.devices.ssh.device", "SshDevice"),
    "fake": ("edgenas.devices.fake", "FakeDevice"),
    "absent": ("edgenas.devices.absent", "AbsentDevice"),
}


def device_class(kind: str, where: str) -> type[Device]:
    """The class behind a kind of connection; raises UsageError that begins with ``where`` and lists the kinds."""
    if kind in _BUILT_IN:
        module, name = _BUILT_IN[kind]
        found = getattr(importlib.import_module(module), name)
    else:
        added = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
        if kind not in added:
            raise UsageError(
                f"{where}: unknown kind of connection {kind!r}{suggest_nearest(kind, sorted({*_BUILT_IN, *added}))}"
            )
        found = added[kind].load()
    if not (isinstance(found, type) and issubclass(found, Device)):
        raise UsageError(f"{where}: the package behind kind {kind!r} gives {found!r}, which is no edgenas Device class")
    return found


def connect_device(profile: DeviceProfile) -> Device:
    """Connect to the device of a profile; the caller closes it. Raises DeviceError when it cannot be reached."""
    return device_class(profile.connection.kind, profile.name).connect(profile)
