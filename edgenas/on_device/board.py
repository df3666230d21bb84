"""What a device says about itself while models run there: conditions, frequency, power. Sent beside agent.py.

Python 3.8, standard library only; never imports edgenas. Everything is read
below a root folder, so that recorded trees can stand for a board. Sources of
the files: Linux, Documentation/admin-guide/pm/cpufreq.rst, hwmon/ina3221.rst,
thermal; Raspberry Pi documentation, vcgencmd get_throttled; NVIDIA Jetson Linux
Developer Guide, Platform Power and Performance.
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
FEWEST_READINGS = 3


def conditions(
    root: Path, cores: Sequence[int] | None = None, ask: Callable[[Sequence[str]], str | None] | None = None
) -> dict[str, Any]:
    """What changes from minute to minute, None where the device does not say.

    Frequencies are those of ``cores``, or of the fastest CPU where none are
    given: now; the bounds that are set; what the hardware could. ``ask`` runs a
    command of the board, by default where ``root`` is the machine itself.
    """
    ask = ask or (run if root == Path("/") else no_command)
    load = re.match(r"\d+\.\d+", text(root / "proc/loadavg") or "")
    return {
        "time": round(time.time(), 3),
        **cpu(root / "sys/devices/system/cpu", cores),
        "temperature_c": temperature(root),
        "throttled_flags": throttled_flags(root, ask),
        "load_average": float(load.group()) if load else None,
        "power_mode": power_mode(root, ask),
        "power": power_source(root),
        **gpu(root),
    }


def cpu(folder: Path, cores: Sequence[int] | None) -> dict[str, Any]:
    """Governors, frequencies and counted throttling."""
    chosen = chosen_cpus(folder, cores)
    governors = sorted({name for one in chosen for name in texts(one, "cpufreq/scaling_governor")})
    throttled = [count for one in chosen for count in numbers(one, "thermal_throttle/core_throttle_count")]
    return {
        "governor": ",".join(governors) or None,
        "frequency_khz": fastest(chosen, "scaling_cur_freq"),
        "frequency_limit_khz": fastest(chosen, "scaling_max_freq"),
        "frequency_max_khz": fastest(chosen, "cpuinfo_max_freq"),
        "frequency_base_khz": fastest(chosen, "base_frequency"),
        "frequency_fixed": is_fixed([one / "cpufreq" for one in chosen], "scaling_min_freq", "scaling_max_freq"),
        "throttle_count": sum(throttled) if throttled else None,
    }


def chosen_cpus(folder: Path, cores: Sequence[int] | None) -> list[Path]:
    """The folders of these CPUs, of all where none are given."""
    return [folder / f"cpu{number}" for number in cores] if cores else sorted(folder.glob("cpu[0-9]*"))


def fastest(chosen: Sequence[Path], name: str) -> int | None:
    """The highest of a kind of frequency in kHz among some CPUs."""
    return max((value for one in chosen for value in numbers(one, f"cpufreq/{name}")), default=None)


def is_fixed(folders: Sequence[Path], least: str, most: str) -> bool | None:
    """Whether the bounds leave one frequency, whatever a governor wants; None where they are not given."""
    bounds = [(whole(text(one / least)), whole(text(one / most))) for one in folders]
    known = [bound for bound in bounds if None not in bound]
    return all(low == high for low, high in known) if known else None


def temperature(root: Path) -> float | None:
    """The hottest thermal zone in degrees Celsius; zones that are off give nonsense."""
    heat = [value / 1000 for value in numbers(root / "sys/class/thermal", "thermal_zone*/temp")]
    return max((value for value in heat if -40 < value < 150), default=None)


def throttled_flags(root: Path, ask: Callable[[Sequence[str]], str | None]) -> int | None:
    """Raspberry Pi: bits 0 to 3, what limits it now (voltage, cap, throttling, heat); 16 to 19, what did before."""
    if "Raspberry Pi" not in (text(root / "proc/device-tree/model") or ""):
        return None
    answer = (ask(["vcgencmd", "get_throttled"]) or "").partition("=")[2]
    # The file is deprecated: the kernel complains once in its log.
    answer = answer or (text(root / "sys/devices/platform/soc/soc:firmware/get_throttled") or "")
    try:
        return int(answer.strip(), 16)
    except ValueError:
        return None


def power_mode(root: Path, ask: Callable[[Sequence[str]], str | None]) -> str | None:
    """Jetson: the name of nvpmodel's mode, or its number where it has none."""
    state = re.match(r"pmode:(\d+)", text(root / "var/lib/nvpmodel/status") or "")
    if state:
        modes = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", text(root / "etc/nvpmodel.conf") or "")
        names = {int(number): name for number, name in modes}
        return str(names.get(int(state.group(1)), int(state.group(1))))
    if text(root / "etc/nv_tegra_release") is None:
        return None
    named = re.search(r"NV Power Mode:\s*(\S+)", ask(["nvpmodel", "-q"]) or "")
    return named.group(1) if named else None


def power_source(root: Path) -> str | None:
    """``battery`` when one is being discharged, ``mains`` when a board with a battery or supply says otherwise."""
    supplies = sorted((root / "sys/class/power_supply").glob("*"))
    states = [((text(one / "type") or "").strip(), (text(one / "status") or "").strip()) for one in supplies]
    if ("Battery", "Discharging") in states:
        return "battery"
    return "mains" if any(kind in ("Battery", "Mains") for kind, _ in states) else None


def gpu(root: Path) -> dict[str, Any]:
    """The clock of a GPU that Linux scales (Jetson) in kHz, its bound, and whether it is fixed; else nothing."""
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        if re.search(r"gpu|ga10b|gv11b|gp10b", folder.name):
            now, limit = whole(text(folder / "cur_freq")), whole(text(folder / "max_freq"))
            return {
                "gpu_frequency_khz": None if now is None else now // 1000,
                "gpu_limit_khz": None if limit is None else limit // 1000,
                "gpu_fixed": is_fixed([folder], "min_freq", "max_freq"),
            }
    return {}


class BoardMonitor:
    """Reads power and frequency beside a running model, at times that the model's process can be matched with."""

    def __init__(
        self, root: Path, cores: Sequence[int] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.root, self.cores, self.clock = root, cores, clock
        self.chosen = chosen_cpus(root / "sys/devices/system/cpu", cores)
        self.rail, self.sensor = find_power(root)
        self.idle_mw: float | None = None
        self.readings: list[tuple[float, float | None, int | None]] = []

    @property
    def seconds(self) -> float:
        """How long to wait from one reading to the next."""
        return POWER_SECONDS if self.sensor else FREQUENCY_SECONDS

    def settle(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Find the power that the idle board draws; takes a second where it has a sensor."""
        if self.sensor is None:
            return
        found = []
        for _ in range(int(IDLE_SECONDS / POWER_SECONDS)):
            found.append(milliwatts(self.sensor))
            sleep(POWER_SECONDS)
        known = [value for value in found if value is not None]
        self.idle_mw = sum(known) / len(known) if known else None

    def conditions(self) -> dict[str, Any]:
        """The conditions now."""
        return conditions(self.root, self.cores)

    def begin(self) -> None:
        """Forget what was read of an earlier model."""
        self.readings = []

    def read(self) -> None:
        """Take one reading."""
        power = milliwatts(self.sensor) if self.sensor else None
        self.readings.append((self.clock(), power, fastest(self.chosen, "scaling_cur_freq")))

    def lowest_frequency(self, window: Sequence[float]) -> int | None:
        """The lowest frequency, in kHz, that was read between two times."""
        found = [khz for at, _, khz in self.readings if window[0] <= at <= window[1] and khz is not None]
        return min(found, default=None)

    def energy(self, window: Sequence[float], runs: int, probed_s: float) -> dict[str, Any]:
        """Energy of one of ``runs`` runs between two times, above that of the idle board; nothing without a sensor.

        For ``probed_s`` of that time the CPU did other work.
        """
        power = [mw for at, mw, _ in self.readings if window[0] <= at <= window[1] and mw is not None]
        if self.idle_mw is None or len(power) < FEWEST_READINGS:
            return {}
        above = sum(power) / len(power) - self.idle_mw
        return {"energy_mj": round(above * (window[1] - window[0] - probed_s) / runs, 6), "energy_rail": self.rail}


def find_power(root: Path) -> tuple[str, tuple[Path, Path] | None]:
    """The rail that feeds the whole board, with its files of millivolts and milliamperes; None where there is none."""
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if (text(folder / "name") or "").strip() != "ina3221":
            continue
        for number in (1, 2, 3):
            label = (text(folder / f"in{number}_label") or "").strip()
            if label in INPUT_RAILS:
                return label, (folder / f"in{number}_input", folder / f"curr{number}_input")
    return "", None


def milliwatts(sensor: tuple[Path, Path]) -> float | None:
    """The power at a sensor now: mV times mA is µW."""
    volts, amperes = whole(text(sensor[0])), whole(text(sensor[1]))
    return None if volts is None or amperes is None else volts * amperes / 1000


def run(command: Sequence[str]) -> str | None:
    """What a command of the board prints; None when it is not there, fails or does not end within two seconds."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed names, no shell
            list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2, check=True
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return done.stdout


def no_command(command: Sequence[str]) -> str | None:
    """A recorded tree has no commands."""
    return None


def text(path: Path) -> str | None:
    """A small file's text, None when it cannot be read: sensors that are off answer with an error."""
    try:
        return path.read_text(errors="replace")
    except (OSError, ValueError):
        return None


def texts(folder: Path, pattern: str) -> list[str]:
    """The texts, without blanks around them, of all files of a pattern that can be read."""
    found = [text(path) for path in sorted(folder.glob(pattern))]
    return [one.strip() for one in found if one and one.strip()]


def whole(given: str | None) -> int | None:
    """A whole number from text, None for anything else."""
    try:
        return int(given or "")
    except ValueError:
        return None


def numbers(folder: Path, pattern: str) -> list[int]:
    """The whole numbers in the files of a pattern."""
    return [value for value in map(whole, texts(folder, pattern)) if value is not None]
