"""The conditions of a device without Python: its own shell sends the files, this machine reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgenas.devices import Deadline, Device
from edgenas.devices.answers import check_answer
from edgenas.errors import DeviceError
from edgenas.on_device import board
from edgenas.on_device.work_folder import WorkFolder
from edgenas.profilers.measure.protocol import Conditions

_SECONDS = 30.0
_MARK = "== edgenas == "
_COMMANDS = ("dumpsys battery", "dumpsys thermalservice")
_FILES = (
    "/proc/loadavg",
    *(
        f"/sys/devices/system/cpu/cpu[0-9]*/cpufreq/{name}"
        for name in ("scaling_governor", "scaling_cur_freq", "scaling_min_freq", "scaling_max_freq", "cpuinfo_max_freq")
    ),
    "/sys/class/thermal/thermal_zone*/temp",
)
_END = "end"
_MOST_FILES = 4000
# A name that a pattern stands for: its wildcards are numbers.
_NAME = re.compile("|".join(re.sub(r"(\[0-9\])?\*", "[0-9]{1,4}", pattern) for pattern in _FILES))
_SCRIPT = (
    'for pattern; do for file in $pattern; do [ -r "$file" ] && { '
    f'echo "{_MARK}$file"; cat "$file"; echo; }}; done; done 2>/dev/null; '
    + "".join(f'echo "{_MARK}{command}"; {command} 2>/dev/null; ' for command in _COMMANDS)
    + f'echo "{_MARK}{_END}"'
)


def read_conditions_by_shell(device: Device, cpus: Sequence[int] | None) -> Conditions:
    """Return the conditions on a device now, in the form that the agent gives.

    Args:
        device: A connected device with a shell.
        cpus: The CPUs to read frequencies of, all by default.

    Raises:
        DeviceError: The device is lost, or says what cannot be.
    """
    done = device.run(["sh", "-c", _SCRIPT, "sh", *_FILES], deadline=Deadline(_SECONDS))
    parts = (part.partition("\n") for part in done.stdout.split(_MARK)[1:])
    said = {name: text for name, _, text in parts}
    files = [name for name in said if name not in (*_COMMANDS, _END)]
    if len(files) > _MOST_FILES or not all(map(_NAME.fullmatch, files)):
        raise DeviceError(f"{device.name}: sent files of its conditions that nobody asked for; look at its sh")
    with WorkFolder() as root:
        for name in files:
            _write(root / name.lstrip("/"), said[name])
        if any(said.get(command, "").strip() for command in _COMMANDS):
            _write(root / "system/bin/dumpsys", "")

        def ask(command: Sequence[str]) -> str | None:
            return said.get(" ".join(command))

        conditions: dict[str, Any] = board.read_conditions(root, cpus, ask)
    return check_answer(Conditions, conditions, device.name)


def _write(path: Path, text: str) -> None:
    """Write a file that is read once, now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
