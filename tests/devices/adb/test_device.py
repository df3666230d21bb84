"""A machine behind the real adb and adbd: the contract with Python there and without, and what adb says otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgenas.devices import Deadline, Device, connect_device
from edgenas.devices.testing import DeviceContract
from edgenas.errors import DeviceError
from edgenas.pipeline.device_setup import set_up_device
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


@pytest.mark.slow
def test_set_up_waits_for_who_measures_without_python(bare_phone: AdbMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the phone's shell holds the lock nothing is installed; then Python is, again where it does not start."""
    monkeypatch.setattr("edgenas.devices.self_contained.install._LOCK_SECONDS", 0.5)
    profile = bare_phone.profile(runtimes={"litert": {}}, work_dir="/data/local/tmp/set-up")
    with (
        connect_device(profile) as device,
        device.lock(Deadline(20)),
        pytest.raises(DeviceError, match="phone: is taken by"),
    ):
        set_up_device(profile)
    assert set_up_device(profile).how == "self-contained"
    assert set_up_device(profile).how == "self-contained, already installed"
    (bare_phone.root / "data/local/tmp/set-up/venv/bin/python").write_text("#!/bin/false\n")
    assert set_up_device(profile).how == "self-contained"
