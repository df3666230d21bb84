"""The classes of devices by kind of connection: the built-in ones, and those of installed packages."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

from edgenas.devices.contract import Device
from edgenas.devices.profile import DeviceProfile
from edgenas.errors import UsageError
from edgenas.files import format_suggestion

ENTRY_POINTS = "edgenas.devices"
_BUILT_IN = {
    "local": ("edgenas.devices.local", "LocalDevice"),
    "ssh": ("edgenas.devices.ssh.device", "SshDevice"),
    "fake": ("edgenas.devices.fake", "FakeDevice"),
    "absent": ("edgenas.devices.absent", "AbsentDevice"),
}


def load_device_class(kind: str, where: str) -> type[Device]:
    """Return the class of a kind of connection.

    Args:
        kind: ``local``, ``ssh``, ``fake``, ``absent``, or the name of an entry
            point of group ``edgenas.devices``.
        where: The file or profile that names it; messages begin with it.

    Raises:
        UsageError: No such kind, or the entry point is no device class.
    """
    if kind in _BUILT_IN:
        module, name = _BUILT_IN[kind]
        loaded = getattr(importlib.import_module(module), name)
    else:
        installed = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
        if kind not in installed:
            known = format_suggestion(kind, sorted({*_BUILT_IN, *installed}))
            raise UsageError(f"{where}: unknown kind of connection {kind!r}{known}")
        loaded = installed[kind].load()
    if not (isinstance(loaded, type) and issubclass(loaded, Device)):
        raise UsageError(f"{where}: the package behind kind {kind!r} gives {loaded!r}, not an edgenas Device class")
    return loaded


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
    return load_device_class(profile.connection.kind, profile.name).connect(profile)
