"""The conditions of a device without Python: its own shell sends the files, this machine reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgenas.devices import Deadline, Device
from edgenas.devices.answers import check_answer
from edgenas.files import write_bytes
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
_SCRIPT = (
    'for pattern; do for file in $pattern; do [ -r "$file" ] && { '
    f'echo "{_MARK}$file"; cat "$file"; echo; }}; done; done 2>/dev/null; '
    + "".join(f'echo "{_MARK}{command}"; {command} 2>/dev/null; ' for command in _COMMANDS)
    + f'echo "{_MARK}end"'
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
    with WorkFolder() as root:
        for name, text in said.items():
            if name.startswith(("/sys/", "/proc/")) and ".." not in name.split("/"):
                path = root / name.lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, text.encode())
        if any(said.get(command, "").strip() for command in _COMMANDS):
            write_bytes(_made(root / "system/bin") / "dumpsys", b"")

        def ask(command: Sequence[str]) -> str | None:
            return said.get(" ".join(command))

        conditions: dict[str, Any] = board.read_conditions(root, cpus, ask)
    return check_answer(Conditions, conditions, device.name)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
