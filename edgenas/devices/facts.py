"""What a Linux machine says about itself, from the text of its files: pure parsers, for any kind of connection."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

FACTS = ("model", "cpu", "cores", "arch", "kernel", "memory_bytes", "python")
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
    ("0x41", "0xd42"): "Cortex-A78AE",
}


def read_facts(
    read: Callable[[str], str | None], *, kernel: str | None, arch: str | None, python: str | None
) -> dict[str, Any]:
    """Facts of a machine whose files ``read`` gives as text, None for a file that is not there."""
    cpuinfo = read("/proc/cpuinfo") or ""
    facts: dict[str, Any] = {
        "model": _clean(read("/proc/device-tree/model") or read("/sys/class/dmi/id/product_name")),
        "cpu": cpu_name(cpuinfo),
        "cores": len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)) or None,
        "arch": arch,
        "kernel": kernel,
        "memory_bytes": memory_bytes(read("/proc/meminfo") or ""),
        "python": python,
    }
    return complete(facts)


def complete(facts: dict[str, Any]) -> dict[str, Any]:
    """``facts`` with every key of FACTS, the list of those not given, and whether the device is synthetic."""
    full: dict[str, Any] = {"synthetic": False, **dict.fromkeys(FACTS), **facts}
    return {**full, "missing": [key for key in FACTS if full[key] is None]}


def cpu_name(cpuinfo: str) -> str | None:
    """The name in /proc/cpuinfo, or the distinct Arm cores that it lists by number."""
    fields = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in cpuinfo.splitlines())]
    for wanted in _CPU_KEYS:
        names = list(dict.fromkeys(value for key, value in fields if key == wanted and value and not value.isdigit()))
        if names:
            return " + ".join(names)
    makers = [value for key, value in fields if key == "CPU implementer"]
    parts = [value for key, value in fields if key == "CPU part"]
    cores = dict.fromkeys(zip(makers, parts, strict=False))
    return " + ".join(_ARM_CORES.get(core, f"core {core[0]}/{core[1]}") for core in cores) or None


def memory_bytes(meminfo: str) -> int | None:
    """Total memory from the text of /proc/meminfo."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None


def _clean(text: str | None) -> str | None:
    return (text or "").replace("\0", "").strip() or None
