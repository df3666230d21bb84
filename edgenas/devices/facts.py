"""Facts of a Linux machine, parsed from the text of its files, for any kind of connection.

The files are a device's own and may hold anything. What cannot be parsed is
unknown; what was parsed passes the strict reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NotRequired

from annotated_types import Interval
from typing_extensions import TypedDict

from edgenas.devices.answers import MAX_CPUS, STRICT, FreeText, VersionText, Word, check_answer
from edgenas.files import Count, ShortText
from edgenas.on_device.board import int_or_none

FACTS = ("model", "cpu", "cores", "clusters", "arch", "os", "kernel", "memory_bytes", "python")
# All files that ``collect_facts`` may ask for, as shell patterns: a remote machine sends them all at once.
FACT_PATTERNS = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/device-tree/model",
    "/sys/class/dmi/id/product_name",
    "/etc/os-release",
    "/etc/nv_tegra_release",
    "/sys/devices/system/cpu/cpu[0-9]*/cpu_capacity",
    "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq",
)
_CPU_KEYS = ("model name", "Hardware", "cpu model", "Processor")

# /proc/cpuinfo gives an Arm core's implementer and part numbers, no name: Linux, arch/arm64/include/asm/cputype.h.
_ARM_CORES = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd04"): "Cortex-A35",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0d"): "Cortex-A77",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd44"): "Cortex-X1",
    ("0x41", "0xd46"): "Cortex-A510",
    ("0x41", "0xd47"): "Cortex-A710",
    ("0x41", "0xd48"): "Cortex-X2",
    ("0x41", "0xd4b"): "Cortex-A78C",
    ("0x41", "0xd4c"): "Cortex-X1C",
    ("0x41", "0xd4d"): "Cortex-A715",
    ("0x41", "0xd4e"): "Cortex-X3",
    ("0x41", "0xd80"): "Cortex-A520",
    ("0x41", "0xd81"): "Cortex-A720",
    ("0x41", "0xd82"): "Cortex-X4",
    ("0x41", "0xd85"): "Cortex-X925",
    ("0x41", "0xd87"): "Cortex-A725",
}
# Equal cores may differ by one part of this many in their highest frequency: chips are binned by pairs of cores.
_FREQUENCY_PARTS = 10


class CpuCluster(TypedDict):
    """A group of equal cores."""

    __pydantic_config__ = STRICT  # type: ignore[misc] # pydantic's way to configure a typed dict
    cores: list[Annotated[int, Interval(ge=0, lt=MAX_CPUS)]]
    cpu: FreeText | None
    capacity: Count | None
    max_frequency_khz: Count | None


class DeviceFacts(TypedDict):
    """What identifies a device; None where it does not say."""

    __pydantic_config__ = STRICT  # type: ignore[misc] # see CpuCluster
    model: FreeText | None
    cpu: FreeText | None
    cores: Annotated[int, Interval(ge=1, le=MAX_CPUS)] | None
    clusters: list[CpuCluster] | None
    arch: Word | None
    os: FreeText | None
    kernel: Word | None
    memory_bytes: Count | None
    python: VersionText | None
    synthetic: bool
    missing: list[ShortText]
    jetson_linux: NotRequired[ShortText]
    board: NotRequired[FreeText]
    soc: NotRequired[FreeText]


def collect_facts(
    read: Callable[[str], str | None], where: str, *, kernel: str | None, arch: str | None, python: str | None
) -> dict[str, Any]:
    """Return the facts of a machine.

    Args:
        read: Returns the text of a file of the machine, None for a missing file.
        where: The machine's name in messages.
        kernel: The kernel's release, None where unknown.
        arch: The machine's architecture as ``uname -m`` prints it.
        python: The version of the Python that runs the agent.

    Returns:
        The keys of FACTS, ``synthetic`` and ``missing``, and on a Jetson
        ``jetson_linux`` (``R36.3.0``).

    Raises:
        DeviceError: A value is out of range; the message names the fact.
    """
    cpuinfo = read("/proc/cpuinfo") or ""
    model = read("/proc/device-tree/model") or read("/sys/class/dmi/id/product_name") or ""
    facts: dict[str, Any] = {
        "model": model.replace("\0", "").strip() or None,
        "cpu": parse_cpu_name(cpuinfo),
        "cores": len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)) or None,
        "clusters": collect_cpu_clusters(read, cpuinfo) or None,
        "arch": arch,
        "os": parse_os_name(read("/etc/os-release") or ""),
        "kernel": kernel,
        "memory_bytes": parse_memory_bytes(read("/proc/meminfo") or ""),
        "python": python,
    }
    jetson = parse_jetson_linux_release(read("/etc/nv_tegra_release") or "")
    return complete_facts({**facts, "jetson_linux": jetson} if jetson else facts, where)


def complete_facts(facts: dict[str, Any], where: str) -> dict[str, Any]:
    """Return facts with None for absent keys of FACTS, ``synthetic``, and the keys without a value as ``missing``.

    Raises:
        DeviceError: A fact is unknown, of another type or out of range; the message names ``where`` and the fact.
    """
    complete: dict[str, Any] = {"synthetic": False, **dict.fromkeys(FACTS), **facts}
    complete["missing"] = [key for key in FACTS if complete[key] is None]
    return dict(check_answer(DeviceFacts, complete, where))


def parse_cpu_name(cpuinfo: str) -> str | None:
    """Return the distinct kinds of Arm core in the text of /proc/cpuinfo, or the CPU's name there."""
    # The name on Arm boards says nothing: ARMv8 Processor, or BCM2835 on every Raspberry Pi.
    arm = list(dict.fromkeys(name for name in parse_arm_cores(cpuinfo).values() if name))
    if arm:
        return " + ".join(arm)
    names: dict[str, dict[str, None]] = {key: {} for key in _CPU_KEYS}
    for key, value in _iter_fields(cpuinfo):
        if key in names and value and not value.isdigit():
            names[key][value] = None
    return next((" + ".join(found) for found in names.values() if found), None)


def parse_arm_cores(cpuinfo: str) -> dict[int, str | None]:
    """Return the names of the cores in the text of /proc/cpuinfo by number, None for a core that is not Arm."""
    cores: dict[int, str | None] = {}
    # One more than there may be: such a machine is refused for its number of cores.
    for block in re.split(r"^(?=processor\s*:)", cpuinfo, maxsplit=MAX_CPUS + 1, flags=re.MULTILINE):
        fields = dict(_iter_fields(block))
        number = int_or_none(fields.get("processor"))
        if number is not None:
            maker, part = fields.get("CPU implementer"), fields.get("CPU part")
            name = _ARM_CORES.get((maker or "", part or ""), f"core {maker}/{part}")
            cores[number] = name if part else None
    return cores


def _iter_fields(text: str) -> Iterator[tuple[str, str]]:
    """Yield the keys and values of lines such as ``CPU part : 0xd08``."""
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            yield key.strip(), value.strip()


def collect_cpu_clusters(read: Callable[[str], str | None], cpuinfo: str) -> list[dict[str, Any]]:
    """Return groups of equal cores, the slowest first.

    Args:
        read: Returns the text of a file of the machine, None for a missing file.
        cpuinfo: The text of /proc/cpuinfo.

    Returns:
        For each group ``cores`` (their numbers), ``cpu`` (the core's name),
        ``capacity`` (Linux's cpu_capacity, 1024 for the fastest core) and
        ``max_frequency_khz``; None for unknown values.
    """
    groups: list[dict[str, Any]] = []
    for number, name in sorted(parse_arm_cores(cpuinfo).items()):
        folder = f"/sys/devices/system/cpu/cpu{number}"
        capacity = int_or_none(read(f"{folder}/cpu_capacity"))
        frequency = int_or_none(read(f"{folder}/cpufreq/cpuinfo_max_freq"))
        core = {"cores": [number], "cpu": name, "capacity": capacity, "max_frequency_khz": frequency}
        same = next((group for group in groups if _is_same_core_kind(group, core)), None)
        if same is None:
            groups.append(core)
        else:
            same["cores"].append(number)
            for key in ("capacity", "max_frequency_khz"):
                same[key] = max((value for value in (same[key], core[key]) if value is not None), default=None)
    return sorted(groups, key=lambda group: (group["capacity"] or 0, group["max_frequency_khz"] or 0))


def _is_same_core_kind(group: dict[str, Any], core: dict[str, Any]) -> bool:
    mine, others = core["max_frequency_khz"], group["max_frequency_khz"]
    if group["cpu"] != core["cpu"] or (mine is None) != (others is None):
        return False
    return mine is None or _FREQUENCY_PARTS * abs(mine - others) <= max(mine, others)


def parse_os_name(os_release: str) -> str | None:
    """Return the system's name from the text of /etc/os-release."""
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)"?', os_release, re.MULTILINE)
    return match.group(1).strip() if match else None


def parse_jetson_linux_release(release: str) -> str | None:
    """Return NVIDIA's release of Jetson Linux from the text of /etc/nv_tegra_release: ``R36.3.0``."""
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", release)
    return f"R{match.group(1)}.{match.group(2)}" if match else None


def parse_memory_bytes(meminfo: str) -> int | None:
    """Return the total memory from the text of /proc/meminfo."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    kilobytes = int_or_none(match.group(1)) if match else None
    return None if kilobytes is None else kilobytes * 1024
