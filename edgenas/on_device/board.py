"""Conditions of a device while models run there: governor, frequency, temperature, power. Sent beside agent.py.

Python 3.8, standard library only; never imports edgenas. Everything is read
below a root folder, so that recorded file trees can stand for a board. Sources of
the files: Linux, Documentation/admin-guide/pm/cpufreq.rst, hwmon/ina3221.rst,
thermal; Raspberry Pi documentation, vcgencmd get_throttled; NVIDIA Jetson Linux
Developer Guide, Platform Power and Performance; AOSP, BatteryService and ThermalManagerService (dumpsys).
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Rails that carry all that a board or module draws: Jetson Orin and Xavier NX, Jetson Nano.
INPUT_RAILS = ("VDD_IN", "POM_5V_IN")
POWER_SECONDS = 0.05
FREQUENCY_SECONDS = 0.1
IDLE_SECONDS = 1.0
# Of Android: BatteryManager.BATTERY_STATUS_..., and types of android.hardware.thermal (AIDL).
CHARGING, KNOWN_BATTERY_STATES = 2, range(2, 6)
PROCESSOR_TYPE, WATCHED_TYPES = 0, (0, 1, 2, 3, 9)  # CPU; with GPU, battery, skin and NPU
COOLED_TYPES = (2, 3, 5, 7)  # CPU, GPU, NPU, TPU
MIN_READINGS = 3


def read_conditions(
    root: Path, cores: Sequence[int] | None = None, ask: Callable[[Sequence[str]], str | None] | None = None
) -> dict[str, Any]:
    """Return what changes from minute to minute; None where the device does not say.

    Frequencies are those of ``cores``, or of the fastest CPU where none are
    given: the current one, the bounds that are set, and the hardware's bound. ``ask`` runs a
    command of the board; by default only where ``root`` is the machine itself.
    """
    ask = ask or (try_run_command if root == Path("/") else ignore_command)
    load = re.match(r"\d+\.\d+", read_text_or_none(root / "proc/loadavg") or "")
    conditions = {
        "time": round(time.time(), 3),
        **read_cpu_conditions(root / "sys/devices/system/cpu", cores),
        "temperature_c": read_temperature(root),
        "throttled_flags": read_throttled_flags(root, ask),
        "load_average": float(load.group()) if load else None,
        "power_mode": read_power_mode(root, ask),
        "power": read_power_source(root),
        **read_gpu_conditions(root),
    }
    if not (root / "system/bin/dumpsys").exists():
        return conditions
    # Android. A phone on its battery is as it should be.
    battery, thermal = (ask(["dumpsys", service]) for service in ("battery", "thermalservice"))
    heat = parse_thermal_service(thermal or "")
    hottest = heat.pop("temperature_c")
    conditions.update(parse_battery(battery or ""), power=None, **heat)
    return conditions if hottest is None else {**conditions, "temperature_c": hottest}


def parse_battery(dump: str) -> dict[str, Any]:
    """Return what Android's ``dumpsys battery`` says of charging and heat; None for what it does not say."""
    fields = dict(re.findall(r"^ *(status|temperature): (-?\d{1,4}) *\r?$", dump, re.MULTILINE))
    state, tenths = int_or_none(fields.get("status")), int_or_none(fields.get("temperature"))
    return {
        "charging": state == CHARGING if state in KNOWN_BATTERY_STATES else None,
        "battery_temperature_c": tenths / 10 if tenths is not None and -400 < tenths < 1500 else None,
    }


def parse_thermal_service(dump: str) -> dict[str, Any]:
    """Return what Android's ``dumpsys thermalservice`` says now; None for what it does not say.

    ``thermal_status`` is the highest of the whole phone and of its processors, battery and skin: 0 for none,
    1 light, up to 6. ``cooling`` says whether a processor is slowed down. The cached temperatures are old.
    """
    now = dump.partition("Current temperatures from HAL:")[2].partition("Temperature static thresholds")[0]
    whole = re.search(r"^Thermal Status: ([0-6]) *\r?$", dump, re.MULTILINE)
    sensors = re.findall(
        r"^\s*Temperature\{mValue=(-?\d{1,3}(?:\.\d+)?), mType=(-?\d+), mName=[^,}]*, mStatus=([0-6])\}",
        now,
        re.MULTILINE,
    )
    slowed = re.findall(r"^\s*CoolingDevice\{mValue=(\d+), mType=(\d+), mName=[^,}]*\}", now, re.MULTILINE)
    states = [int(state) for _, kind, state in sensors if int(kind) in WATCHED_TYPES] + (
        [int(whole[1])] if whole else []
    )
    heat = [float(value) for value, kind, _ in sensors if int(kind) == PROCESSOR_TYPE]
    cooled = [value for value, kind in slowed if int(kind) in COOLED_TYPES]
    is_ready = re.search(r"^HAL Ready: true *\r?$", dump, re.MULTILINE) is not None
    return {
        "thermal_status": max(states) if states and is_ready else None,
        "cooling": any(int(value) > 0 for value in cooled) if cooled else None,
        "temperature_c": max((value for value in heat if 0 < value < 150), default=None),
    }


def read_cpu_conditions(folder: Path, cores: Sequence[int] | None) -> dict[str, Any]:
    """Return governors, frequencies and counts of throttling."""
    cpus = cpu_folders(folder, cores)
    governors = sorted({name for one in cpus for name in read_texts(one, "cpufreq/scaling_governor")})
    throttled = [count for one in cpus for count in read_integers(one, "thermal_throttle/core_throttle_count")]
    return {
        "governor": ",".join(governors) or None,
        "frequency_khz": read_highest_frequency_khz(cpus, "scaling_cur_freq"),
        "frequency_limit_khz": read_highest_frequency_khz(cpus, "scaling_max_freq"),
        "frequency_max_khz": read_highest_frequency_khz(cpus, "cpuinfo_max_freq"),
        "frequency_base_khz": read_highest_frequency_khz(cpus, "base_frequency"),
        "frequency_fixed": read_frequency_fixed(
            [one / "cpufreq" for one in cpus], "scaling_min_freq", "scaling_max_freq"
        ),
        "throttle_count": sum(throttled) if throttled else None,
    }


def cpu_folders(folder: Path, cores: Sequence[int] | None) -> list[Path]:
    """Return the folders of these CPUs, or of all where none are given."""
    return [folder / f"cpu{number}" for number in cores] if cores else sorted(folder.glob("cpu[0-9]*"))


def read_highest_frequency_khz(cpus: Sequence[Path], name: str) -> int | None:
    """Return the highest of a kind of frequency among some CPUs, kHz."""
    values = (int_or_none(read_text_or_none(one / "cpufreq" / name)) for one in cpus)
    return max((value for value in values if value is not None), default=None)


def read_frequency_fixed(folders: Sequence[Path], least: str, most: str) -> bool | None:
    """Return whether the bounds leave one frequency, whatever the governor; None where they are unknown."""
    bounds = [
        (int_or_none(read_text_or_none(one / least)), int_or_none(read_text_or_none(one / most))) for one in folders
    ]
    known = [bound for bound in bounds if None not in bound]
    return all(low == high for low, high in known) if known else None


def read_temperature(root: Path) -> float | None:
    """Return the hottest thermal zone in degrees Celsius, without impossible values of zones that are off."""
    heat = [value / 1000 for value in read_integers(root / "sys/class/thermal", "thermal_zone*/temp")]
    return max((value for value in heat if -40 < value < 150), default=None)


def read_throttled_flags(root: Path, ask: Callable[[Sequence[str]], str | None]) -> int | None:
    """Return a Raspberry Pi's flags: bits 0 to 3, its limits now (voltage, cap, throttling, heat); 16 to 19, before."""
    if "Raspberry Pi" not in (read_text_or_none(root / "proc/device-tree/model") or ""):
        return None
    answer = (ask(["vcgencmd", "get_throttled"]) or "").partition("=")[2]
    # The file is deprecated: the kernel complains once in its log.
    answer = answer or (read_text_or_none(root / "sys/devices/platform/soc/soc:firmware/get_throttled") or "")
    try:
        return int(answer.strip(), 16)
    except ValueError:
        return None


def read_power_mode(root: Path, ask: Callable[[Sequence[str]], str | None]) -> str | None:
    """Return the name of a Jetson's nvpmodel mode, or its number where it has no name."""
    state = re.match(r"pmode:(\d+)", read_text_or_none(root / "var/lib/nvpmodel/status") or "")
    if state:
        modes = re.findall(
            r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", read_text_or_none(root / "etc/nvpmodel.conf") or ""
        )
        names = {int(number): name for number, name in modes}
        return str(names.get(int(state.group(1)), int(state.group(1))))
    if read_text_or_none(root / "etc/nv_tegra_release") is None:
        return None
    named = re.search(r"NV Power Mode:\s*(\S+)", ask(["nvpmodel", "-q"]) or "")
    return named.group(1) if named else None


def read_power_source(root: Path) -> str | None:
    """Return ``battery`` where one discharges, ``mains`` for any other board with a battery or supply; else None."""
    supplies = sorted((root / "sys/class/power_supply").glob("*"))
    states = [
        ((read_text_or_none(one / "type") or "").strip(), (read_text_or_none(one / "status") or "").strip())
        for one in supplies
    ]
    if ("Battery", "Discharging") in states:
        return "battery"
    return "mains" if any(kind in ("Battery", "Mains") for kind, _ in states) else None


def read_gpu_conditions(root: Path) -> dict[str, Any]:
    """Return the clock of a GPU that Linux scales (Jetson) in kHz, its bound, and whether it is fixed; else nothing."""
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        if re.search(r"gpu|ga10b|gv11b|gp10b", folder.name):
            now, limit = (int_or_none(read_text_or_none(folder / name)) for name in ("cur_freq", "max_freq"))
            return {
                "gpu_frequency_khz": None if now is None else now // 1000,
                "gpu_limit_khz": None if limit is None else limit // 1000,
                "gpu_fixed": read_frequency_fixed([folder], "min_freq", "max_freq"),
            }
    return {}


class BoardMonitor:
    """Reads power and frequency while a model runs, with times that its process can be matched with."""

    def __init__(
        self, root: Path, cores: Sequence[int] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.root, self.cores, self.clock = root, cores, clock
        self.cpus = cpu_folders(root / "sys/devices/system/cpu", cores)
        self.rail, self.sensor = find_power_rail_and_sensor(root)
        self.idle_mw: float | None = None
        self.readings: list[tuple[float, float | None, int | None]] = []

    @property
    def reading_interval_s(self) -> float:
        """Seconds from one reading to the next."""
        return POWER_SECONDS if self.sensor else FREQUENCY_SECONDS

    def measure_idle_power(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Measure the power of the idle board; takes a second where it has a sensor."""
        if self.sensor is None:
            return
        readings = []
        for _ in range(int(IDLE_SECONDS / POWER_SECONDS)):
            readings.append(read_power_mw(self.sensor))
            sleep(POWER_SECONDS)
        known = [value for value in readings if value is not None]
        self.idle_mw = sum(known) / len(known) if known else None

    def read_conditions(self) -> dict[str, Any]:
        """Return the conditions now."""
        return read_conditions(self.root, self.cores)

    def clear_readings(self) -> None:
        """Forget the readings of an earlier model."""
        self.readings = []

    def take_reading(self) -> None:
        """Take one reading."""
        power = read_power_mw(self.sensor) if self.sensor else None
        self.readings.append((self.clock(), power, read_highest_frequency_khz(self.cpus, "scaling_cur_freq")))

    def lowest_frequency_khz(self, window: Sequence[float]) -> int | None:
        """Return the lowest frequency that was read between two times, kHz; None without a reading."""
        readings = [khz for at, _, khz in self.readings if window[0] <= at <= window[1] and khz is not None]
        return min(readings, default=None)

    def energy_fields(self, window: Sequence[float], runs: int, probed_s: float) -> dict[str, Any]:
        """Return the energy of one of ``runs`` runs between two times, above the idle board's; empty without a sensor.

        For ``probed_s`` of that time the CPU did other work.
        """
        power = [mw for at, mw, _ in self.readings if window[0] <= at <= window[1] and mw is not None]
        if self.idle_mw is None or len(power) < MIN_READINGS:
            return {}
        above = sum(power) / len(power) - self.idle_mw
        return {"energy_mj": round(above * (window[1] - window[0] - probed_s) / runs, 6), "energy_rail": self.rail}


def find_power_rail_and_sensor(root: Path) -> tuple[str, tuple[Path, Path] | None]:
    """Return the rail that feeds the whole board, with its files of mV and mA; None in their place without a sensor."""
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if (read_text_or_none(folder / "name") or "").strip() != "ina3221":
            continue
        for number in (1, 2, 3):
            label = (read_text_or_none(folder / f"in{number}_label") or "").strip()
            if label in INPUT_RAILS:
                return label, (folder / f"in{number}_input", folder / f"curr{number}_input")
    return "", None


def read_power_mw(sensor: tuple[Path, Path]) -> float | None:
    """Return the power at a sensor now, mW: mV times mA is µW."""
    volts, amperes = int_or_none(read_text_or_none(sensor[0])), int_or_none(read_text_or_none(sensor[1]))
    return None if volts is None or amperes is None else volts * amperes / 1000


def try_run_command(command: Sequence[str]) -> str | None:
    """Return a command's output; None when it is absent, fails or does not end within two seconds."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed names, no shell
            list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2, check=True
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return done.stdout


def ignore_command(command: Sequence[str]) -> str | None:
    """Return None: a recorded file tree has no commands."""
    return None


def read_text_or_none(path: Path) -> str | None:
    """Return a small file's text; None when it cannot be read, as of sensors that are off."""
    try:
        return path.read_text(errors="replace")
    except (OSError, ValueError):
        return None


def read_texts(folder: Path, pattern: str) -> list[str]:
    """Return the stripped texts of the files of a pattern that can be read and are not empty."""
    contents = [read_text_or_none(path) for path in sorted(folder.glob(pattern))]
    return [one.strip() for one in contents if one and one.strip()]


def int_or_none(content: str | None) -> int | None:
    """Return an integer from text; None for anything else."""
    try:
        return int(content or "")
    except ValueError:
        return None


def read_integers(folder: Path, pattern: str) -> list[int]:
    """Return the integers in the files of a pattern."""
    return [value for value in map(int_or_none, read_texts(folder, pattern)) if value is not None]
