"""What machines say about themselves, on recorded text."""

from __future__ import annotations

from edgenas.devices.facts import cpu_name, memory_bytes, read_facts

# /proc/cpuinfo of a Rock 5B (RK3588: four Cortex-A55, four Cortex-A76), shortened to two cores.
ARM = """processor\t: 0
BogoMIPS\t: 48.00
CPU implementer\t: 0x41
CPU part\t: 0xd05

processor\t: 4
CPU implementer\t: 0x41
CPU part\t: 0xd0b
"""


def test_an_x86_names_its_cpu() -> None:
    """The model name of an x86 is used, once for all cores."""
    assert cpu_name("processor\t: 0\nmodel name\t: Xeon\nprocessor\t: 1\nmodel name\t: Xeon\n") == "Xeon"


def test_arm_cores_are_named_by_their_numbers() -> None:
    """Arm gives numbers; both clusters of a big.LITTLE are named."""
    assert cpu_name(ARM) == "Cortex-A55 + Cortex-A76"


def test_an_unknown_arm_core_keeps_its_number() -> None:
    """A core that is not in the list is shown by its numbers."""
    assert cpu_name("CPU implementer : 0x61\nCPU part : 0x22\n") == "core 0x61/0x22"


def test_memory_is_in_bytes() -> None:
    """/proc/meminfo counts in units of 1024 bytes."""
    assert memory_bytes("MemTotal:        2048 kB\n") == 2_097_152


def test_a_silent_machine_lists_what_is_missing() -> None:
    """Where no file can be read, every fact is missing and none is invented."""
    facts = read_facts(lambda path: None, kernel="6.1", arch=None, python="3.11.2")
    assert facts["missing"] == ["model", "cpu", "cores", "arch", "memory_bytes"]


def test_a_boards_name_loses_its_zero_byte() -> None:
    """The device tree ends its strings with a zero byte."""
    files = {"/proc/device-tree/model": "Radxa ROCK 5B\0", "/proc/cpuinfo": ARM}
    facts = read_facts(files.get, kernel=None, arch="aarch64", python=None)
    assert (facts["model"], facts["cores"]) == ("Radxa ROCK 5B", 2)
