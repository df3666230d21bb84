"""Facts of machines, read from recorded text."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.devices.facts import (
    FACTS,
    collect_cpu_clusters,
    collect_facts,
    parse_cpu_name,
    parse_jetson_linux_release,
    parse_memory_bytes,
    parse_os_name,
)
from edgenas.errors import DeviceError

CPU = "/sys/devices/system/cpu/cpu{}/{}"


def cpuinfo(parts: list[str], tail: str = "", maker: str = "0x41") -> str:
    """/proc/cpuinfo as an Arm Linux prints it, shortened to the lines that identify its cores."""
    blocks = [
        f"processor\t: {number}\nBogoMIPS\t: 48.00\nCPU implementer\t: {maker}\nCPU part\t: {part}\nCPU revision\t: 0\n"
        for number, part in enumerate(parts)
    ]
    return "\n".join([*blocks, tail])


# Cores, and the lines after them, as in the dumps of github.com/hrw/arm-socs-table: issues 18 (Radxa Rock 5B),
# 96 (Raspberry Pi 5), and of github.com/nicolargo/glances issue 2616 (Raspberry Pi 4). Frequencies: the RK3588 is
# binned by pairs of big cores, so one pair has that of github.com/Joshua-Riek/ubuntu-rockchip issue 294, the other
# that of github.com/MichaIng/DietPi issue 6989. Capacities: as Linux computes them from the 530 and 1024 of
# rk3588-base.dtsi times the frequencies.
ROCK_5B = {
    "/proc/cpuinfo": cpuinfo(["0xd05"] * 4 + ["0xd0b"] * 4),
    "/proc/device-tree/model": "Radxa ROCK 5B\0",
    **{CPU.format(n, "cpufreq/cpuinfo_max_freq"): "1800000\n" for n in range(4)},
    **{CPU.format(n, "cpufreq/cpuinfo_max_freq"): "2256000\n" for n in (4, 5)},
    **{CPU.format(n, "cpufreq/cpuinfo_max_freq"): "2400000\n" for n in (6, 7)},
    **{CPU.format(n, "cpu_capacity"): "397\n" for n in range(4)},
    **{CPU.format(n, "cpu_capacity"): "962\n" for n in (4, 5)},
    **{CPU.format(n, "cpu_capacity"): "1024\n" for n in (6, 7)},
}
PI_5 = {
    "/proc/cpuinfo": cpuinfo(
        ["0xd0b"] * 4, "Hardware\t: BCM2835\nRevision\t: d04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
    ),
    "/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "/etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\n',
    **{CPU.format(n, "cpufreq/cpuinfo_max_freq"): "2400000\n" for n in range(4)},
}
PI_4 = {
    "/proc/cpuinfo": cpuinfo(["0xd08"] * 4, "Revision\t: d03115\nModel\t\t: Raspberry Pi 4 Model B Rev 1.5\n"),
    "/proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.5\0",
}
# Model name and cores of the Orin Nano in github.com/henrygd/beszel issue 286; the release file's form is the one in
# NVIDIA's Jetson Linux Developer Guide.
ORIN_NANO = {
    "/proc/cpuinfo": cpuinfo(["0xd42"] * 6).replace("BogoMIPS", "model name\t: ARMv8 Processor rev 1 (v8l)\nBogoMIPS"),
    "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "/etc/nv_tegra_release": "# R36 (release), REVISION: 3.0, GCID: 36923193, BOARD: generic, EABI: aarch64\n",
    **{CPU.format(n, "cpufreq/cpuinfo_max_freq"): "1510400\n" for n in range(6)},
    **{CPU.format(n, "cpu_capacity"): "1024\n" for n in range(6)},
}


def facts_of(files: dict[str, str]) -> dict[str, Any]:
    """The facts of a board with these files."""
    return collect_facts(files.get, "board", kernel="6.1", arch="aarch64", python="3.11.2")


def test_an_x86_names_its_cpu() -> None:
    """The model name of an x86 is used, once for all cores."""
    assert parse_cpu_name("processor\t: 0\nmodel name\t: Xeon\nprocessor\t: 1\nmodel name\t: Xeon\n") == "Xeon"


@pytest.mark.parametrize(
    ("board", "name", "cpu"),
    [
        (ROCK_5B, "Radxa ROCK 5B", "Cortex-A55 + Cortex-A76"),
        (PI_5, "Raspberry Pi 5 Model B Rev 1.0", "Cortex-A76"),
        (PI_4, "Raspberry Pi 4 Model B Rev 1.5", "Cortex-A72"),
        (ORIN_NANO, "NVIDIA Jetson Orin Nano Developer Kit", "Cortex-A78AE"),
    ],
)
def test_boards_are_named_by_model_and_cores(board: dict[str, str], name: str, cpu: str) -> None:
    """The device tree's name without its zero byte; cores, not the names that cpuinfo invents for them."""
    facts = facts_of(board)
    assert (facts["model"], facts["cpu"]) == (name, cpu)


def test_an_unknown_arm_core_keeps_its_number() -> None:
    """A core that is not in the list is shown by its numbers."""
    assert parse_cpu_name(cpuinfo(["0x22"], maker="0x61")) == "core 0x61/0x22"


def test_a_big_little_has_two_clusters() -> None:
    """Little and big cores are told apart; pairs of big cores that are binned 6% apart are one cluster."""
    assert facts_of(ROCK_5B)["clusters"] == [
        {"cores": [0, 1, 2, 3], "cpu": "Cortex-A55", "capacity": 397, "max_frequency_khz": 1_800_000},
        {"cores": [4, 5, 6, 7], "cpu": "Cortex-A76", "capacity": 1024, "max_frequency_khz": 2_400_000},
    ]


def test_equal_cores_are_one_cluster() -> None:
    """A Raspberry Pi has one, and says nothing about capacity."""
    assert facts_of(PI_5)["clusters"] == [
        {"cores": [0, 1, 2, 3], "cpu": "Cortex-A76", "capacity": None, "max_frequency_khz": 2_400_000}
    ]
    assert facts_of(PI_4)["clusters"][0]["max_frequency_khz"] is None


def test_equal_cores_at_other_frequencies_are_apart() -> None:
    """A prime core that is the same design at 2.8 instead of 2.4 GHz is a cluster of its own."""
    files = {CPU.format(n, "cpufreq/cpuinfo_max_freq"): "2400000" for n in range(3)}
    files[CPU.format(3, "cpufreq/cpuinfo_max_freq")] = "2840000"
    assert [each["cores"] for each in collect_cpu_clusters(files.get, cpuinfo(["0xd41"] * 4))] == [[0, 1, 2], [3]]


@given(st.lists(st.tuples(st.sampled_from(["0xd05", "0xd0b"]), st.sampled_from([None, "1800000", "2400000"]))))
def test_clusters_hold_each_core_once(cores: list[tuple[str, str | None]]) -> None:
    """Whatever the board, every core is in one cluster."""
    frequencies = {CPU.format(n, "cpufreq/cpuinfo_max_freq"): value for n, (_, value) in enumerate(cores)}
    found = collect_cpu_clusters(frequencies.get, cpuinfo([part for part, _ in cores]))
    assert sorted(number for group in found for number in group["cores"]) == list(range(len(cores)))


@given(st.sampled_from([ROCK_5B, PI_5, ORIN_NANO]), st.text(st.characters(exclude_categories=["N"])), st.data())
def test_nonsense_in_any_file_is_survived(board: dict[str, str], content: str, data: st.DataObject) -> None:
    """Whatever words one file of a board holds, its other facts are still read and all of them are printable."""
    spoiled = data.draw(st.sampled_from(sorted(board)))
    facts = facts_of({**board, spoiled: content})
    assert facts["kernel"] == "6.1"
    assert spoiled == "/proc/cpuinfo" or facts["cores"] in (4, 6, 8)
    assert all(value.isprintable() for value in facts.values() if isinstance(value, str))


MODEL, CPUINFO, MEMORY = "/proc/device-tree/model", "/proc/cpuinfo", "/proc/meminfo"
CAPACITY, FREQUENCY = CPU.format(0, "cpu_capacity"), CPU.format(0, "cpufreq/cpuinfo_max_freq")
DIGITS = "9" * 4000


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({CAPACITY: "-5"}, r"clusters\.0\.capacity: .* greater than or equal to 0"),
        ({FREQUENCY: DIGITS}, r"clusters\.0\.max_frequency_khz: .* less than or equal to"),
        ({MEMORY: f"MemTotal: {DIGITS} kB"}, "memory_bytes: .* less than or equal to"),
        ({CPUINFO: cpuinfo(["0xd08"]).replace(": 0", f": {DIGITS}", 1)}, r"clusters\.0\.cores\.0: .* less than 4096"),
        ({CPUINFO: cpuinfo([hex(number) for number in range(5000)])}, "cores: .* less than or equal to 4096"),
        ({"kernel": "6.1\x1b[2J"}, "kernel: Predicate 'is_word' failed"),
        ({"kernel": "6" * 5000}, "kernel: String should have at most 200 characters"),
        ({"python": "3"}, "python: Predicate 'is_version' failed"),
        ({"python": f"3.{DIGITS}"}, "python: Predicate 'is_version' failed"),
        ({"python": "hello"}, "python: Predicate 'is_version' failed"),
    ],
)
def test_a_fact_out_of_range_is_a_device_error(files: dict[str, str], problem: str) -> None:
    """A number that no machine has, and a version that is none, are refused by the fact's name."""
    board = {CPUINFO: cpuinfo(["0xd08"]), "kernel": "6.1", "python": "3.11", **files}
    with pytest.raises(DeviceError, match=rf"^board: answered nonsense \({problem}") as error:
        collect_facts(board.get, "board", kernel=board["kernel"], arch="aarch64", python=board["python"])
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "content",
    [
        "processor: 1\na" + " " * 1_000_000,
        "\n" * 1_000_000,
        "a:\n" * 300_000,
        "processor:1\n" * 100_000,
        "MemTotal:" + " " * 1_000_000,
        "R" + "1" * 1_000_000,
        'PRETTY_NAME="' + "x" * 1_000_000,
    ],
    ids=["blanks", "empty lines", "fields", "equal cores", "no memory", "a release", "a name"],
)
def test_large_files_take_neither_long_nor_much_memory(content: str) -> None:
    """The time of parsing grows with the size of a file alone."""
    started = time.monotonic()
    with contextlib.suppress(DeviceError):
        facts_of(dict.fromkeys([CPUINFO, MEMORY, MODEL, "/etc/os-release", "/etc/nv_tegra_release"], content))
    assert time.monotonic() - started < 15


def test_names_of_control_characters_become_printable() -> None:
    """What a vendor wrote into a name is shown without what would move the cursor, and shortened."""
    facts = facts_of({MODEL: "Some\x1b[31m  board\0", CPUINFO: "model name: " + "x" * 5000})
    assert facts["model"] == "Some [31m  board"
    assert len(facts["cpu"]) <= 400


def test_memory_is_in_bytes() -> None:
    """/proc/meminfo counts in units of 1024 bytes."""
    assert parse_memory_bytes("MemTotal:        2048 kB\n") == 2_097_152


def test_systems_are_named() -> None:
    """The release of the system, and on a Jetson that of NVIDIA's Linux."""
    assert facts_of(PI_5)["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert facts_of(ORIN_NANO)["jetson_linux"] == "R36.3.0"
    assert "jetson_linux" not in facts_of(PI_5)
    assert parse_os_name("NAME=Buildroot\n") is None
    assert parse_jetson_linux_release("something else") is None


def test_a_silent_machine_lists_what_is_missing() -> None:
    """Without a readable file every fact is missing and none is invented."""
    facts = collect_facts(lambda path: None, "board", kernel="6.1", arch=None, python="3.11.2")
    assert facts["missing"] == ["model", "cpu", "cores", "clusters", "arch", "os", "memory_bytes"]
    assert set(FACTS) <= set(facts)
