"""What Android's dumpsys says of charging and heat, on recorded answers of phones."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.on_device import board

# github.com/openatx/adbutils, tests/test_mixin.py and test_device.py: plugged in by USB, not charging, 80%.
BATTERY = """\
Current Battery Service state:
    AC powered: false
    USB powered: true
    Wireless powered: false
    Dock powered: false
    Max charging current: 0
    Max charging voltage: 0
    Charge counter: 10000
    status: 4
    health: 2
    present: true
    level: 80
    scale: 100
    voltage: 5000
    temperature: 250
    technology: Li-ion
"""
# Skia's buildbot (skia.googlesource.com/buildbot), the tests of its machine server: a phone that charges.
CHARGING = """\
Current Battery Service state:
  AC powered: true
  USB powered: false
  Wireless powered: false
  Max charging current: 1500000
  Max charging voltage: 5000000
  Charge counter: 2448973
  status: 2
  health: 2
  present: true
  level: 9
  scale: 100
  voltage: 4248
"""
# android.stackexchange.com/questions/246774: Samsung A52 5G, Android 12.
SAMSUNG = """\
IsStatusOverride: false
ThermalEventListeners:
        callbacks: 1
        killed: false
        broadcasts count: -1
ThermalStatusListeners:
        callbacks: 4
        killed: false
        broadcasts count: -1
Thermal Status: 0
Cached temperatures:
        Temperature{mValue=0.0, mType=2, mName=SUBBAT, mStatus=0}
        Temperature{mValue=95.6, mType=0, mName=AP, mStatus=3}
HAL Ready: true
HAL connection:
        ThermalHAL 2.0 connected: yes
Current temperatures from HAL:
        Temperature{mValue=25.6, mType=0, mName=AP, mStatus=0}
        Temperature{mValue=23.8, mType=2, mName=BAT, mStatus=0}
        Temperature{mValue=24.7, mType=3, mName=LRB, mStatus=0}
        Temperature{mValue=25.7, mType=5, mName=PA, mStatus=0}
        Temperature{mValue=0.0, mType=2, mName=SUBBAT, mStatus=0}
        Temperature{mValue=0.0, mType=4, mName=USB, mStatus=0}
Current cooling devices from HAL:
Temperature static thresholds from HAL:
"""
# Skia's buildbot, as above: an older Pixel; values of 8900.0 are milliamperes of a newer one.
PIXEL = """\
Thermal Status: 0
Cached temperatures:
\tTemperature{mValue=32.401, mType=3, mName=mb-therm-monitor, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL 2.0 connected: yes
Current temperatures from HAL:
\tTemperature{mValue=28.000002, mType=2, mName=battery, mStatus=0}
\tTemperature{mValue=33.800003, mType=0, mName=cpu0-gold-usr, mStatus=0}
\tTemperature{mValue=44.1, mType=0, mName=cpu1-silver-usr, mStatus=0}
\tTemperature{mValue=8900.0, mType=7, mName=soft_ocp_gpu, mStatus=0}
\tTemperature{mValue=-0.117000006, mType=-1, mName=USB2-MINUS-USB, mStatus=0}
\tTemperature{mValue=32.9, mType=1, mName=gpu0-usr, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=1, mName=battery}
\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}
\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-6}
\tCoolingDevice{mValue=0, mType=3, mName=thermal-devfreq-0}
"""


def answers(battery: str | None, thermal: str | None) -> dict[str, object]:
    said = {"dumpsys battery": battery, "dumpsys thermalservice": thermal}
    with TemporaryDirectory() as folder:
        (Path(folder) / "system/bin").mkdir(parents=True)
        (Path(folder) / "system/bin/dumpsys").touch()
        return board.read_conditions(Path(folder), ask=lambda command: said.get(" ".join(command)))


@pytest.mark.parametrize(
    ("dump", "found"),
    [
        (BATTERY, {"charging": False, "battery_temperature_c": 25.0}),
        (CHARGING, {"charging": True, "battery_temperature_c": None}),
        (BATTERY.replace("status: 4", "status: 1"), {"charging": None, "battery_temperature_c": 25.0}),
        (BATTERY.replace("status: 4", "status: 4x"), {"charging": None, "battery_temperature_c": 25.0}),
        (BATTERY.replace("250", "99999"), {"charging": False, "battery_temperature_c": None}),
        ("", {"charging": None, "battery_temperature_c": None}),
    ],
)
def test_the_battery_says_whether_it_charges(dump: str, found: dict[str, object]) -> None:
    """Only the known states count, and a temperature that can be one."""
    assert board.parse_battery(dump) == found


def test_a_phone_says_how_hot_it_is() -> None:
    """The temperatures of now count, not the cached ones; other sensors and an absent cooling device say nothing."""
    assert board.parse_thermal_service(SAMSUNG) == {"thermal_status": 0, "cooling": None, "temperature_c": 25.6}
    assert board.parse_thermal_service(PIXEL) == {"thermal_status": 0, "cooling": False, "temperature_c": 44.1}


@pytest.mark.parametrize(
    ("old", "new", "key", "value"),
    [
        ("Thermal Status: 0", "Thermal Status: 2", "thermal_status", 2),
        ("cpu1-silver-usr, mStatus=0", "cpu1-silver-usr, mStatus=3", "thermal_status", 3),
        ("soft_ocp_gpu, mStatus=0", "soft_ocp_gpu, mStatus=3", "thermal_status", 0),
        ("mValue=0, mType=2, mName=thermal-cpufreq-6", "mValue=4, mType=2, mName=thermal-cpufreq-6", "cooling", True),
        ("mValue=0, mType=1, mName=battery", "mValue=4, mType=1, mName=battery", "cooling", False),
        ("HAL Ready: true", "HAL Ready: false", "thermal_status", None),
        ("Thermal Status: 0", "Thermal Status: 9", "thermal_status", 0),
    ],
)
def test_heat_is_noticed(old: str, new: str, key: str, value: object) -> None:
    """The highest status of the phone, its processors, battery and skin counts, and what cools a processor."""
    assert old in PIXEL
    assert board.parse_thermal_service(PIXEL.replace(old, new))[key] == value


def test_a_phone_has_conditions_that_a_board_has_not(tmp_path: Path) -> None:
    """With dumpsys they are among the conditions, and running on the battery is no condition; else they are absent."""
    found = answers(CHARGING, PIXEL)
    assert (found["charging"], found["thermal_status"], found["cooling"]) == (True, 0, False)
    assert (found["temperature_c"], found["power"]) == (44.1, None)
    assert answers(None, PIXEL)["charging"] is None
    assert "charging" not in board.read_conditions(tmp_path)


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_answer_is_survived(battery: str, thermal: str) -> None:
    """Whatever dumpsys prints, nothing is raised."""
    assert answers(battery, thermal)["charging"] in (None, True, False)
