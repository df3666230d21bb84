"""Installing a userland on a device through its shell: nothing else is needed there but tar with gzip."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenas.devices.answers import MAX_ANSWER_BYTES, PathText, Word, Words, check_answer
from edgenas.devices.contract import Deadline
from edgenas.devices.output import last_line
from edgenas.devices.profile import DeviceProfile
from edgenas.devices.self_contained.layout import MACHINES
from edgenas.devices.self_contained.userland import Userland, prepare_userland, read_userland
from edgenas.devices.setup import (
    VENV_PYTHON,
    Environment,
    InstalledRuntimes,
    checked_installed_runtimes,
)
from edgenas.devices.worker_device import MARK, WorkerDevice
from edgenas.errors import DeviceError, UsageError
from edgenas.runtimes import load_runtime
from edgenas.units import format_bytes

_LOCK_SECONDS = 30.0
_NOTE = "userland.sha256"
_DONE, _NONE = "it is in place", "none"
# Scripts stand on one line and hold no !, or csh could not read them.
_PYTHON_WORKS = f'echo "{MARK}"; "$0" -I -c "" 2>/dev/null && echo yes'
# Makes the folder $0; prints the processor, the folder's path, and the digest of the userland there.
_LOOK = (
    'p=$0; case "$p" in "~/"*) p="$HOME/${p#??}";; esac; '
    f'echo "{MARK}"; exec 2>&1; mkdir -p "$p" && cd "$p" && uname -m && pwd && '
    f'{{ n=$(cat venv/{_NOTE} 2>/dev/null); echo "${{n:-{_NONE}}}"; }}'
)
# Unpacks standard input in the folder $0 (-v: signs of life), checks it by the program $1 with the digest $2 of its
# manifest, and puts it in the place of what was there before. $3 is the digest of the whole. The number of its process
# is in the names, so that two can run; what one that ended has left goes first.
_UNPACK = (
    f'echo "{MARK}"; exec 2>&1; n=venv.new.$$; o=venv.old.$$; cd "$0" && '
    '{ for d in venv.new* venv.old*; do [ -d "/proc/${d##*.}" ] || rm -rf "$d"; done; } && '
    "rm -rf $n $o && mkdir $n && tar xzf - -v -C $n && "
    f'echo "$3" >$n/{_NOTE} && "$0/$n/bin/python" -I -c "$1" "$0/$n" "$2" && sync && '
    "{ if [ -e venv ]; then mv venv $o; fi && mv $n venv || { mv $o venv 2>/dev/null; false; }; } && rm -rf $o && "
    f'echo "{_DONE}" || rm -rf $n'
)
# Checks the folder argv[1] against its manifest, and that against argv[2].
_CHECK = """
import hashlib, json, pathlib, sys
root = pathlib.Path(sys.argv[1])
def digest(name):
    return hashlib.sha256((root / name).read_bytes()).hexdigest()
if digest("userland.json") != sys.argv[2]:
    sys.exit("userland.json arrived changed")
for name, wanted in json.loads((root / "userland.json").read_text())["files"].items():
    print(name, flush=True)  # a sign of life
    if digest(name) != wanted:
        sys.exit(name + " arrived changed")
"""


@dataclass(frozen=True)
class _Place:
    """A device's processor, the folder there, and the digest of the userland in it (any text), None without one.

    A userland whose Python does not start is none.
    """

    machine: str
    base: str
    installed: str | None


class _ImportError(DeviceError):
    """A runtime of a userland cannot be imported there."""


def has_python(device: WorkerDevice, python: str, deadline: Deadline) -> bool:
    """Return whether an interpreter works on a device.

    Raises:
        DeviceError: The device is lost or silent.
    """
    return device.run_in_shell(deadline, _PYTHON_WORKS, python).split() == ["yes"]


def install_userland(
    device: WorkerDevice,
    profile: DeviceProfile,
    deadline: Deadline,
    *,
    userland: Path | None = None,
    wheels: Sequence[Path] = (),
    say: Callable[[str], None] = lambda text: None,
) -> InstalledRuntimes:
    """Install Python and the profile's runtimes in one folder that needs nothing of the device but kernel and shell.

    It takes the place of the environment that ``install_runtimes`` makes, and of
    an earlier userland. What is there already is not sent again.

    Args:
        device: The connected device.
        profile: Its profile. The default runtime must be had, others may be skipped.
        deadline: The time for all of it.
        userland: A packed userland to use instead of putting one together here.
        wheels: Wheel files to use instead of the index's.
        say: Called with a line about each longer step.

    Raises:
        DeviceError: The device cannot be installed on.
        UsageError: The userland is for another processor or lacks the default runtime, or none can be made here.
        EdgeNASError: Packages or wheels cannot be fetched.
    """
    place = _look_at_place(device, profile, deadline)
    if userland is None:
        packed = prepare_userland(profile, place.machine, deadline, wheels=wheels, say=say)
    else:
        packed = read_userland(userland)
        _check_fits(packed, profile, place.machine)
    python = f"{place.base}/{VENV_PYTHON}"
    with contextlib.ExitStack() as stack:
        # Who can hold no lock there measures nothing.
        if place.installed or device.locks_without_python(deadline):
            stack.enter_context(device.lock(Deadline(_LOCK_SECONDS)))
        if place.installed == packed.sha256:
            try:
                environment = _read_environment(device, profile, packed, python, deadline)
                return checked_installed_runtimes(profile, environment, python, "self-contained, already installed")
            except _ImportError:
                say(f"{profile.name}: what is installed there is damaged")
        say(f"{profile.name}: sending Python and runtimes, {format_bytes(len(packed.packed))}")
        _send(device, profile, place.base, packed, deadline)
        environment = _read_environment(device, profile, packed, python, deadline)
    return checked_installed_runtimes(profile, environment, python, "self-contained")


def _look_at_place(device: WorkerDevice, profile: DeviceProfile, deadline: Deadline) -> _Place:
    """Return what is in the folder that a userland goes to, which is made; raise DeviceError where that fails."""
    base = device.work_dir
    lines = device.run_in_shell(deadline, _LOOK, base).strip().splitlines()
    if len(lines) < 3:
        raise DeviceError(
            f"{profile.name}: {base} cannot be made there ({last_line(chr(10).join(lines)) or 'no answer'});"
            " set work_dir in the profile to a folder that can be written"
        )
    machine = check_answer(Word, lines[0], f"{profile.name}: its processor")
    if machine not in MACHINES:
        raise DeviceError(
            f"{profile.name}: its processor is {machine}, and there are self-contained runtimes for"
            f" {' and '.join(MACHINES)} only; install Python 3.8 or newer and a runtime there yourself"
        )
    folder = check_answer(PathText, lines[1], f"{profile.name}: its folder")
    installed = "\n".join(lines[2:])
    if installed == _NONE or not has_python(device, f"{folder}/{VENV_PYTHON}", deadline):
        return _Place(machine, folder, None)
    return _Place(machine, folder, installed)


def _check_fits(userland: Userland, profile: DeviceProfile, machine: str) -> None:
    manifest, default = userland.manifest, profile.default.runtime
    if manifest.machine != machine:
        raise UsageError(f"{userland.path}: is for {manifest.machine}, and {profile.name} is {machine}; give another")
    if default not in manifest.runtimes:
        raise UsageError(
            f"{userland.path}: has {' and '.join(manifest.runtimes)}, and {profile.name} needs {default}; give another"
        )


def _send(device: WorkerDevice, profile: DeviceProfile, base: str, userland: Userland, deadline: Deadline) -> None:
    """Send a userland and put it in place. What was there before stays where that fails."""
    arguments = (base, _CHECK, userland.manifest_sha256, userland.sha256)
    printed = device.run_in_shell(deadline, _UNPACK, *arguments, stdin=userland.packed)
    if last_line(printed) != _DONE:
        raise DeviceError(
            f"{profile.name}: a self-contained runtime cannot be installed in {base}"
            f" ({last_line(printed) or 'the connection was lost'}); free space there, or set work_dir in the profile"
            " to a folder on a disk that is not mounted noexec"
        )


def _read_environment(
    device: WorkerDevice, profile: DeviceProfile, userland: Userland, python: str, deadline: Deadline
) -> Environment:
    """Import each runtime there and return what they say of themselves."""
    versions, providers, skipped = {}, {}, dict(userland.manifest.skipped)
    for name in sorted(profile.runtimes.keys() - skipped.keys()):
        if name not in userland.manifest.runtimes:
            skipped[name] = f"is not in {userland.path}"
            continue
        program = load_runtime(name, f"{profile.name}: edgenas cannot install runtime").version_program
        done = device.run([python, "-I", "-c", program], deadline=deadline)
        if done.exit_status:
            raise _ImportError(
                f"{profile.name}: {name} was installed and cannot be imported ({done.failure});"
                f" the device may lack memory, or {userland.path} is for another"
            )
        words = check_answer(Words, done.stdout[:MAX_ANSWER_BYTES].split(), f"{profile.name}: {name}")
        versions[name], *providers[name] = words or ["?"]
    return Environment(versions, providers, skipped, [])
