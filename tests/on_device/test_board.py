"""The conditions of a device while it measures, on recorded file trees of real boards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenas.on_device import board

CPU = "sys/devices/system/cpu"
# Under-voltage and throttling now and before: 0x50005, from github.com/raspberrypi/firmware issue 615. The file is
# the one of github.com/raspberrypi/linux pull request 2397, which prints the number without 0x.
PI_4 = {
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.5\0",
    "proc/loadavg": "0.52 0.58 0.59 1/467 12345\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    **{f"{CPU}/cpu{n}/cpufreq/scaling_governor": "ondemand\n" for n in range(4)},
    **{f"{CPU}/cpu{n}/cpufreq/scaling_cur_freq": "1500000\n" for n in range(4)},
    **{f"{CPU}/cpu{n}/cpufreq/scaling_min_freq": "600000\n" for n in range(4)},
    **{f"{CPU}/cpu{n}/cpufreq/scaling_max_freq": "1500000\n" for n in range(4)},
    **{f"{CPU}/cpu{n}/cpufreq/cpuinfo_max_freq": "1800000\n" for n in range(4)},
}
# The frequencies of github.com/MichaIng/DietPi issue 6989 (RK3588): little cores 0 to 3, big cores 4 to 7.
ROCK_5B = {
    "proc/device-tree/model": "Radxa ROCK 5B\0",
    **{f"{CPU}/cpu{n}/cpufreq/scaling_governor": "performance\n" for n in range(4)},
    **{f"{CPU}/cpu{n}/cpufreq/scaling_governor": "schedutil\n" for n in range(4, 8)},
    **{f"{CPU}/cpu{n}/cpufreq/scaling_cur_freq": "1800000\n" for n in range(4)},
    **{f"{CPU}/cpu{n}/cpufreq/scaling_cur_freq": "408000\n" for n in range(4, 8)},
    **{f"{CPU}/cpu{n}/cpufreq/cpuinfo_max_freq": "1800000\n" for n in range(4)},
    **{f"{CPU}/cpu{n}/cpufreq/cpuinfo_max_freq": "2400000\n" for n in range(4, 8)},
}
# An Orin Nano after jetson_clocks. Its monitor's rails: Linux, tegra234-p3767.dtsi (VDD_IN, VDD_CPU_GPU_CV, VDD_SOC);
# the files, the first nodes of the hwmon folder and a channel that answers with an error instead of a value:
# github.com/alumet-dev/alumet issue 212; "sum of shunt voltages": github.com/rbonghi/jetson_stats issue 428; modes
# and clocks: NVIDIA Jetson Linux Developer Guide r36.3, Platform Power and Performance.
ORIN_NANO = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 3.0, GCID: 36923193, BOARD: generic, EABI: aarch64\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=7W >\n",
    "var/lib/nvpmodel/status": "pmode:0001\n",
    **{f"{CPU}/cpu{n}/cpufreq/scaling_governor": "schedutil\n" for n in range(6)},
    **{f"{CPU}/cpu{n}/cpufreq/scaling_min_freq": "1510400\n" for n in range(6)},
    **{f"{CPU}/cpu{n}/cpufreq/scaling_max_freq": "1510400\n" for n in range(6)},
    "sys/class/devfreq/17000000.gpu/cur_freq": "624750000\n",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "624750000\n",
    "sys/class/hwmon/hwmon0/name": "pwmfan\n",
    "sys/class/hwmon/hwmon1/name": "ina3221\n",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon1/in1_input": "4960\n",
    "sys/class/hwmon/hwmon1/curr1_input": "1000\n",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV\n",
    "sys/class/hwmon/hwmon1/in2_input": "4960\n",
    "sys/class/hwmon/hwmon1/curr2_input": "300\n",
    "sys/class/hwmon/hwmon1/in3_label": "VDD_SOC\n",
    "sys/class/hwmon/hwmon1/in7_label": "sum of shunt voltages\n",
}


def plant(root: Path, tree: dict[str, str]) -> Path:
    """The tree as files."""
    for name, content in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def without_time(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != "time"}


def test_a_raspberry_pi_says_how_it_is(tmp_path: Path) -> None:
    """Governor, frequency with its bound and what the chip could, heat, throttling bits and load."""
    assert without_time(board.read_conditions(plant(tmp_path, PI_4))) == {
        "governor": "ondemand",
        "frequency_khz": 1_500_000,
        "frequency_limit_khz": 1_500_000,
        "frequency_max_khz": 1_800_000,
        "frequency_base_khz": None,
        "frequency_fixed": False,
        "throttle_count": None,
        "temperature_c": 48.312,
        "throttled_flags": 0x50005,
        "load_average": 0.52,
        "power_mode": None,
        "power": None,
    }


def test_the_firmware_is_asked_before_its_deprecated_file(tmp_path: Path) -> None:
    """vcgencmd's answer is used where it is there; nonsense is no answer."""
    answers = {"vcgencmd": "throttled=0x80008\n"}

    def ask(command: Sequence[str]) -> str | None:
        return answers.get(command[0])

    plant(tmp_path, PI_4)
    assert board.read_conditions(tmp_path, ask=ask)["throttled_flags"] == 0x80008
    answers["vcgencmd"] = "throttled=error\n"
    assert board.read_conditions(tmp_path, ask=ask)["throttled_flags"] is None


def test_only_the_cores_in_use_count(tmp_path: Path) -> None:
    """Bound to big cores, a target has their governor and frequency; unbound, the fastest of all."""
    plant(tmp_path, ROCK_5B)
    big = board.read_conditions(tmp_path, cores=[4, 5])
    assert (big["governor"], big["frequency_khz"], big["frequency_max_khz"]) == ("schedutil", 408_000, 2_400_000)
    assert board.read_conditions(tmp_path, cores=[0])["governor"] == "performance"
    everything = board.read_conditions(tmp_path)
    assert (everything["governor"], everything["frequency_khz"]) == ("performance,schedutil", 1_800_000)


def test_a_jetson_says_its_mode_and_clocks(tmp_path: Path) -> None:
    """The mode by its name in nvpmodel's file; the CPU's clock fixed by its bounds, the GPU's not."""
    found = board.read_conditions(plant(tmp_path, ORIN_NANO))
    assert (found["power_mode"], found["frequency_fixed"]) == ("7W", True)
    assert (found["gpu_frequency_khz"], found["gpu_limit_khz"], found["gpu_fixed"]) == (624_750, 624_750, False)


def test_a_jetson_without_a_status_file_is_asked(tmp_path: Path) -> None:
    """nvpmodel -q answers where the file is not there; another board is never asked for it."""
    tree = {name: content for name, content in ORIN_NANO.items() if not name.startswith("var/")}
    answer = "NV Fan Mode:quiet\nNV Power Mode: MAXN\n0\n"
    assert board.read_conditions(plant(tmp_path / "jetson", tree), ask=lambda _: answer)["power_mode"] == "MAXN"
    assert board.read_conditions(plant(tmp_path / "pi", PI_4), ask=lambda _: answer)["power_mode"] is None


def test_x86_counts_its_throttling(tmp_path: Path) -> None:
    """The counters of all cores are added; the base frequency is what turbo falls back to."""
    tree = {
        f"{CPU}/cpu0/thermal_throttle/core_throttle_count": "2\n",
        f"{CPU}/cpu1/thermal_throttle/core_throttle_count": "3\n",
        f"{CPU}/cpu0/cpufreq/base_frequency": "2100000\n",
        "sys/class/thermal/thermal_zone0/temp": "-274000\n",
    }
    found = board.read_conditions(plant(tmp_path, tree))
    assert (found["throttle_count"], found["frequency_base_khz"], found["temperature_c"]) == (5, 2_100_000, None)


@pytest.mark.parametrize(
    ("supplies", "source"),
    [
        ({}, None),
        ({"AC": ("Mains", "")}, "mains"),
        ({"AC": ("Mains", ""), "BAT0": ("Battery", "Discharging")}, "battery"),
        ({"BAT0": ("Battery", "Full")}, "mains"),
        ({"ucsi-source-psy-1": ("USB", "")}, None),
    ],
)
def test_a_battery_is_noticed(tmp_path: Path, supplies: dict[str, tuple[str, str]], source: str | None) -> None:
    """Only a battery that is being emptied counts as one; a USB entry says nothing about what feeds the board."""
    tree = {f"sys/class/power_supply/{name}/type": kind for name, (kind, _) in supplies.items()}
    tree |= {f"sys/class/power_supply/{name}/status": status for name, (_, status) in supplies.items()}
    assert board.read_conditions(plant(tmp_path, tree))["power"] == source


def test_a_silent_system_gives_none(tmp_path: Path) -> None:
    """What a machine does not say is None, never a guess."""
    assert set(without_time(board.read_conditions(tmp_path)).values()) == {None}


@settings(max_examples=25)
@given(st.sampled_from([PI_4, ROCK_5B, ORIN_NANO]), st.binary(max_size=40), st.data())
def test_nonsense_in_any_file_is_survived(tree: dict[str, str], content: bytes, data: st.DataObject) -> None:
    """Whatever one file of a board holds, the others are still read and nothing is raised."""
    with TemporaryDirectory() as folder:
        root = plant(Path(folder), tree)
        spoiled = data.draw(st.sampled_from(sorted(tree)))
        (root / spoiled).write_bytes(content)
        assert set(board.read_conditions(root)) >= {"governor", "throttled_flags", "power_mode", "load_average"}
        monitor = board.BoardMonitor(root)
        monitor.measure_idle_power(sleep=lambda _: None)
        monitor.take_reading()


def test_a_command_that_is_not_there_is_no_answer() -> None:
    """A board without the tool, or whose tool fails, gives none."""
    assert board.try_run_command(["no-such-command-here"]) is None
    assert board.try_run_command(["false"]) is None
    assert board.try_run_command(["echo", "0"]) == "0\n"


class Bench:
    """A monitor over a planted tree, with a clock and a power that the test sets."""

    def __init__(self, root: Path) -> None:
        self.root, self.now = root, 0.0
        self.monitor = board.BoardMonitor(root, clock=lambda: self.now)
        self.monitor.measure_idle_power(sleep=lambda _: None)

    def read(self, now: float, milliamperes: int, khz: int) -> None:
        self.now = now
        plant(
            self.root,
            {
                "sys/class/hwmon/hwmon1/curr1_input": f"{milliamperes}\n",
                f"{CPU}/cpu0/cpufreq/scaling_cur_freq": f"{khz}\n",
            },
        )
        self.monitor.take_reading()


def test_energy_is_what_a_run_adds_to_the_idle_board(tmp_path: Path) -> None:
    """Idle 4.96 V times 1 A; 1.2, 1.3 and 1.4 A while timing: 0.3 A more, 1488 mW for 2 s in 100 runs.

    Time in which the CPU did other work is not the runs'.
    """
    bench = Bench(plant(tmp_path, ORIN_NANO))
    for now, milliamperes in [(0.0, 5000), (1.0, 1200), (2.0, 1300), (3.0, 1400), (4.0, 9000)]:
        bench.read(now, milliamperes, 1_510_400)
    assert bench.monitor.energy_fields([1.0, 3.0], 100, 0.0) == {
        "energy_mj": pytest.approx(29.76),
        "energy_rail": "VDD_IN",
    }
    assert bench.monitor.energy_fields([1.0, 3.0], 100, 0.1)["energy_mj"] == pytest.approx(0.95 * 29.76)
    assert bench.monitor.reading_interval_s == 0.05


def test_the_lowest_frequency_is_that_while_timing(tmp_path: Path) -> None:
    """A dip before the timing does not count, one within it does."""
    bench = Bench(plant(tmp_path, ORIN_NANO))
    for now, khz in [(0.0, 400_000), (1.0, 1_510_400), (2.0, 1_200_000), (3.0, 1_510_400)]:
        bench.read(now, 1000, khz)
    assert bench.monitor.lowest_frequency_khz([0.5, 3.5]) == 1_200_000
    bench.monitor.clear_readings()
    assert bench.monitor.lowest_frequency_khz([0.5, 3.5]) is None


def test_too_few_readings_are_no_energy(tmp_path: Path) -> None:
    """Two readings within the timing, or a sensor that answers with nonsense, say nothing."""
    bench = Bench(plant(tmp_path, ORIN_NANO))
    bench.read(1.0, 1200, 1)
    bench.read(2.0, 1200, 1)
    assert bench.monitor.energy_fields([0.0, 3.0], 10, 0.0) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"sys/class/hwmon/hwmon1/name": "lm75\n"},
        {"sys/class/hwmon/hwmon1/in1_label": "VDD_GPU_SOC\n"},
        {"sys/class/hwmon/hwmon1/in1_input": "\n"},
    ],
)
def test_a_board_without_an_input_sensor_gives_no_energy(tmp_path: Path, change: dict[str, str]) -> None:
    """Another chip, a rail that feeds only a part of the board, or a channel that is off is no measure of it."""
    bench = Bench(plant(tmp_path, {**ORIN_NANO, **change}))
    for now in range(5):
        bench.read(float(now), 1200, 1)
    assert bench.monitor.energy_fields([0.0, 5.0], 10, 0.0) == {}


@given(st.lists(st.integers(1000, 9000), min_size=3, max_size=20), st.integers(1, 10_000), st.floats(0.01, 100))
def test_energy_times_runs_is_power_times_time(currents: list[int], runs: int, seconds: float) -> None:
    """Whatever was read, all runs together used the mean power above idle for the whole time."""
    monitor = board.BoardMonitor(Path("/nowhere"))
    monitor.idle_mw = 1000.0
    monitor.readings = [(seconds * n / len(currents), float(mw), None) for n, mw in enumerate(currents)]
    total = monitor.energy_fields([0.0, seconds], runs, 0.0)["energy_mj"] * runs
    assert total == pytest.approx((sum(currents) / len(currents) - 1000) * seconds, abs=1e-6 * runs)
