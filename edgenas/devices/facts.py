"""What a Linux machine says about itself, from the text of its files: pure parsers, for any kind of connection."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

FACTS = ("model", "cpu", "cores", "clusters", "arch", "os", "kernel", "memory_bytes", "python")
# All that ``read_facts`` may ask for, as patterns of the shell: a far machine is asked once.
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

# What /proc/cpuinfo of an Arm core gives instead of a name: Linux, arch/arm64/include/asm/cputype.h.
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
}
# Cores of one kind whose highest frequencies are this close are one cluster: chips are binned by pairs of cores.
_SAME_FREQUENCY = 0.1


def read_facts(
    read: Callable[[str], str | None], *, kernel: str | None, arch: str | None, python: str | None
) -> dict[str, Any]:
    """Facts of a machine whose files ``read`` gives as text, None for a file that is not there.

    The keys of FACTS, and ``jetson_linux`` (``R36.3.0``) on a Jetson.
    """
    cpuinfo = read("/proc/cpuinfo") or ""
    facts: dict[str, Any] = {
        "model": _clean(read("/proc/device-tree/model") or read("/sys/class/dmi/id/product_name")),
        "cpu": cpu_name(cpuinfo),
        "cores": len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)) or None,
        "clusters": clusters(read, cpuinfo) or None,
        "arch": arch,
        "os": os_name(read("/etc/os-release") or ""),
        "kernel": kernel,
        "memory_bytes": memory_bytes(read("/proc/meminfo") or ""),
        "python": python,
    }
    jetson = jetson_linux(read("/etc/nv_tegra_release") or "")
    return complete({**facts, "jetson_linux": jetson} if jetson else facts)


def complete(facts: dict[str, Any]) -> dict[str, Any]:
    """``facts`` with every key of FACTS, the list of those not given, and whether the device is synthetic."""
    full: dict[str, Any] = {"synthetic": False, **dict.fromkeys(FACTS), **facts}
    return {**full, "missing": [key for key in FACTS if full[key] is None]}


def cpu_name(cpuinfo: str) -> str | None:
    """The distinct Arm cores that /proc/cpuinfo lists by number, or the name in it."""
    # What Arm boards give as a name is none: ARMv8 Processor, or BCM2835 on every Raspberry Pi.
    arm = list(dict.fromkeys(name for name in arm_cores(cpuinfo).values() if name))
    if arm:
        return " + ".join(arm)
    fields = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in cpuinfo.splitlines())]
    for wanted in _CPU_KEYS:
        names = list(dict.fromkeys(value for key, value in fields if key == wanted and value and not value.isdigit()))
        if names:
            return " + ".join(names)
    return None


def arm_cores(cpuinfo: str) -> dict[int, str | None]:
    """The names of the cores in /proc/cpuinfo by their numbers, None for one that is no Arm core."""
    cores: dict[int, str | None] = {}
    for block in re.split(r"^(?=processor\s*:)", cpuinfo, flags=re.MULTILINE):
        fields = dict(re.findall(r"^(\S[^:\n]*?)\s*:\s*(\S+)\s*$", block, re.MULTILINE))
        if fields.get("processor", "").isdecimal():
            maker, part = fields.get("CPU implementer"), fields.get("CPU part")
            known = _ARM_CORES.get((maker or "", part or ""), f"core {maker}/{part}")
            cores[int(fields["processor"])] = known if part else None
    return cores


def clusters(read: Callable[[str], str | None], cpuinfo: str) -> list[dict[str, Any]]:
    """Groups of equal cores, the slowest first: ``cores`` (numbers), ``cpu``, ``capacity``, ``max_frequency_khz``.

    ``cpu`` is the design's name, ``capacity`` the scheduler's figure (1024 is
    the fastest; Linux, cpu_capacity); None for what is not given.
    """
    groups: list[dict[str, Any]] = []
    for number, name in sorted(arm_cores(cpuinfo).items()):
        folder = f"/sys/devices/system/cpu/cpu{number}"
        capacity = _whole(read(f"{folder}/cpu_capacity"))
        frequency = _whole(read(f"{folder}/cpufreq/cpuinfo_max_freq"))
        core = {"cores": [number], "cpu": name, "capacity": capacity, "max_frequency_khz": frequency}
        same = next((group for group in groups if _is_same_kind(group, core)), None)
        if same is None:
            groups.append(core)
        else:
            same["cores"].append(number)
            for key in ("capacity", "max_frequency_khz"):
                same[key] = max((value for value in (same[key], core[key]) if value is not None), default=None)
    return sorted(groups, key=lambda group: (group["capacity"] or 0, group["max_frequency_khz"] or 0))


def _is_same_kind(group: dict[str, Any], core: dict[str, Any]) -> bool:
    first, second = group["max_frequency_khz"], core["max_frequency_khz"]
    if group["cpu"] != core["cpu"] or (first is None) != (second is None):
        return False
    return first is None or abs(first - second) <= _SAME_FREQUENCY * max(first, second)


def os_name(os_release: str) -> str | None:
    """The system's name from the text of /etc/os-release."""
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)"?', os_release, re.MULTILINE)
    return match.group(1).strip() if match else None


def jetson_linux(release: str) -> str | None:
    """NVIDIA's release of Jetson Linux from the text of /etc/nv_tegra_release: ``R36.3.0``."""
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", release)
    return f"R{match.group(1)}.{match.group(2)}" if match else None


def memory_bytes(meminfo: str) -> int | None:
    """Total memory from the text of /proc/meminfo."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None


def _clean(text: str | None) -> str | None:
    return (text or "").replace("\0", "").strip() or None


def _whole(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None
