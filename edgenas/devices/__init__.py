"""Devices: profiles (addresses), targets (what is measured there), and live connections."""

from __future__ import annotations

from edgenas.devices.absent import absent_profile, check_present, is_absent
from edgenas.devices.connect import connect_device
from edgenas.devices.contract import Deadline, Device
from edgenas.devices.output import CompletedCommand
from edgenas.devices.profile import Connection, DeviceProfile
from edgenas.devices.profile_files import load_profile, shipped_profile_files_by_name
from edgenas.devices.target import Target

__all__ = [
    "CompletedCommand",
    "Connection",
    "Deadline",
    "Device",
    "DeviceProfile",
    "Target",
    "absent_profile",
    "check_present",
    "connect_device",
    "is_absent",
    "load_profile",
    "shipped_profile_files_by_name",
]
