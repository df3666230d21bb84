"""An emulated arm64 machine like a phone's: adbd, a shell and nothing else. Set-up brings Python there through adb."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgenas.devices import Deadline, DeviceProfile, connect_device
from edgenas.devices.profile_files import profile_from_dict
from edgenas.devices.setup import InstalledRuntimes
from edgenas.errors import DeviceError
from edgenas.pipeline.device_check import read_conditions
from edgenas.pipeline.device_setup import profile_yaml, set_up_device
from tests.stand_ins.machine import Machine

pytestmark = [pytest.mark.slow, pytest.mark.aarch64]


@dataclass(frozen=True)
class SetUpPhone:
    """The machine after its set-up: its profile as a file and as data, and what set-up said and returned."""

    file: Path
    profile: DeviceProfile
    said: list[str]
    installed: InstalledRuntimes


@pytest.fixture(scope="module")
def set_up_phone(booted_android: Machine, tmp_path_factory: pytest.TempPathFactory) -> SetUpPhone:
    """The machine after one set-up without options."""
    data = {
        "name": "phone",
        "connection": {"kind": "adb", "serial": booted_android.serial},
        "runtimes": {"litert": {}, "onnxruntime": {}},
        "default": {"runtime": "litert"},
    }
    profile = profile_from_dict(data, "phone")
    said: list[str] = []
    installed = set_up_device(profile, say=said.append)
    file = tmp_path_factory.mktemp("profiles") / "phone.yaml"
    file.write_text(profile_yaml(data))
    return SetUpPhone(file, profile, said, installed)


def test_python_is_brought_along(set_up_phone: SetUpPhone, android: Machine) -> None:
    """Set-up notices that there is no Python, and sends one through adb."""
    assert set_up_phone.said[0] == "phone: has no python3, so Python is brought along (--self-contained)"
    assert set_up_phone.installed.python == "/data/local/tmp/edgenas/venv/bin/python"
    assert set(set_up_phone.installed.versions) == {"litert", "onnxruntime"}


def test_a_phone_says_what_it_is(set_up_phone: SetUpPhone, android: Machine) -> None:
    """Facts come from Android's properties and the kernel's files."""
    with connect_device(set_up_phone.profile) as device:
        facts = device.facts()
    assert facts["model"] == "edgenas Stand-in"
    assert facts["os"].startswith("Android 14")
    assert (facts["arch"], facts["cpu"], facts["python"][:4]) == ("aarch64", "Cortex-A72", "3.11")


def test_a_phone_says_whether_it_charges(set_up_phone: SetUpPhone, android: Machine) -> None:
    """The agent asks dumpsys there; the recorded phone is cool and runs on its battery."""
    with connect_device(set_up_phone.profile) as device:
        conditions = read_conditions(device)
    found = (conditions["charging"], conditions["battery_temperature_c"], conditions["thermal_status"])
    assert found == (False, 27.1, 0)
    assert (conditions["cooling"], conditions["temperature_c"], conditions["power"]) == (False, 33.1, None)


def test_a_model_is_measured(set_up_phone: SetUpPhone, android: Machine, make_relu: Callable[..., Path]) -> None:
    """edgenas measure gives a number, which is not valid: emulated time is none."""
    model = make_relu((1, 16))
    command = [sys.executable, "-m", "edgenas", "measure", str(model), "--device", str(set_up_phone.file)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["models"]
    assert found["validity"]["status"] != "valid"


def test_a_reset_phone_is_given_up_and_works_again(set_up_phone: SetUpPhone, android: Machine) -> None:
    """What was installed is still there after a reset in mid-run, and the next connection uses it."""
    with connect_device(set_up_phone.profile) as device:
        sleeper = [device.python, "-I", "-c", "import time; print('begun', flush=True); time.sleep(600)"]
        with pytest.raises(DeviceError, match=r"no sign of life for 10 s|connection was lost"):
            device.run(sleeper, deadline=Deadline(300), on_line=lambda line: android.reset())
    android.wait_until_it_answers()
    with connect_device(set_up_phone.profile) as device, device.lock(Deadline(60)):
        assert device.run([device.python, "-I", "-c", "print(7)"], deadline=Deadline(120)).stdout == "7\n"
