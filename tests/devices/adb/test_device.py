"""A machine behind the real adb and adbd: the contract with Python there and without, and what adb says otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgenas.devices import Device, connect_device
from edgenas.devices.testing import DeviceContract
from tests.fixtures.adb_machine import AdbMachine

# COMMANDS of the contract for a shell: there is no Python.
SHELL_COMMANDS = {
    "lines": "echo one; echo two; echo bad >&2; exit 3",
    "echo": "read -r line; printf '%s\\n' \"$line\" | rev",
    "flood": "head -c 5000000 /dev/zero | tr '\\0' e >&2; printf last >&2; echo done",
    "slow": "echo begun; sleep 600",
    "binary": "printf '\\377\\nno line feed'",
    "where": "printf '['; for file in *; do printf \"'%s'\" \"$file\"; done; echo ']'",
    "lifeline": "read -r line; if read -t 1 line || [ $? = 1 ]; then echo closed; else echo still open; fi",
}


@pytest.mark.slow
class TestAdb(DeviceContract):
    """With Python the remote worker runs there."""

    @pytest.fixture
    def device(self, phone: AdbMachine) -> Iterator[Device]:
        with connect_device(phone.profile()) as device:
            yield device

    @pytest.fixture
    def other(self, phone: AdbMachine) -> Iterator[Device]:
        with connect_device(phone.profile()) as device:
            yield device


@pytest.mark.slow
class TestAdbWithoutPython(DeviceContract):
    """Without Python the phone's own shell does."""

    def command(self, device: Device, name: str) -> list[str]:
        return ["sh", "-c", SHELL_COMMANDS[name]]

    @pytest.fixture
    def device(self, bare_phone: AdbMachine) -> Iterator[Device]:
        with connect_device(bare_phone.profile()) as device:
            yield device

    @pytest.fixture
    def other(self, bare_phone: AdbMachine) -> Iterator[Device]:
        with connect_device(bare_phone.profile()) as device:
            yield device
