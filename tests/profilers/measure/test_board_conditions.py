"""The conditions that a device's shell sends, here as a synthetic device prints them."""

from __future__ import annotations

import pytest

from edgenas.devices.fake import FakeDevice, Reply
from edgenas.errors import DeviceError
from edgenas.profilers.measure.board_conditions import read_conditions_by_shell

MARK = "== edgenas == "
CPU = "/sys/devices/system/cpu"


def device_that_prints(*parts: str) -> FakeDevice:
    printed = "".join(f"{MARK}{part}\n" for part in parts)
    return FakeDevice(lambda request: Reply(stdout=f"{printed}{MARK}end\n"))


def test_files_are_read_as_on_the_device() -> None:
    """Load, governor, frequency and temperature are those of the files that it sends."""
    found = read_conditions_by_shell(
        device_that_prints(
            "/proc/loadavg\n0.25 0.10 0.05 1/200 3000\n",
            f"{CPU}/cpu0/cpufreq/scaling_governor\nschedutil\n",
            f"{CPU}/cpu0/cpufreq/scaling_cur_freq\n1804800\n",
            "/sys/class/thermal/thermal_zone17/temp\n41500\n",
        ),
        [0],
    )
    assert found["load_average"] == 0.25
    assert (found["governor"], found["frequency_khz"]) == ("schedutil", 1804800)
    assert found["temperature_c"] == 41.5


@pytest.mark.parametrize(
    "name",
    [
        "/sys/a",
        "/proc/loadavg/deeper",
        "/proc/loadavg\0",
        f"{CPU}/cpu0/../cpu1/cpufreq/scaling_governor",
        f"{CPU}/cpu{'0' * 300}/cpufreq/scaling_governor",
        "/sys/class/thermal/thermal_zone/../temp",
        "strange",
    ],
)
def test_a_file_that_nobody_asked_for_is_refused(name: str) -> None:
    """No name that a device makes up becomes one of a file here."""
    with pytest.raises(DeviceError, match="fake: sent files of its conditions that nobody asked for"):
        read_conditions_by_shell(device_that_prints(f"{name}\n1\n"), None)


def test_files_without_end_are_refused() -> None:
    """A device with more sensors than any has is not believed."""
    zones = [f"/sys/class/thermal/thermal_zone{number}/temp\n41500\n" for number in range(5000)]
    with pytest.raises(DeviceError, match="that nobody asked for"):
        read_conditions_by_shell(device_that_prints(*zones), None)
