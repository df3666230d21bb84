"""Installing runtimes on a device, in a virtual environment of edgenas's own there.

The device's own pip does it where there is one and an index; otherwise wheels
for its platform are fetched here, sent, and unpacked there by Python alone:
that needs no pip, no index and no ensurepip on the device. Runtimes are
installed with numpy and without their other dependencies, which only their
tools need.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgenas import on_device
from edgenas.devices.contract import Deadline, Device
from edgenas.devices.profile import DeviceProfile, check_python
from edgenas.errors import DeviceError, EdgeNASError, UsageError
from edgenas.files import digest, suggest_nearest

_SCRIPT = Path(on_device.__file__).with_name("install.py")
# Where runtimes are installed on a device, and where a profile without python has them used.
BASE = "~/.cache/edgenas"  # unless the profile names a work_dir
VENV_PYTHON = "venv/bin/python"  # below BASE or work_dir
_NEEDED_BYTES = 400_000_000
_OLDEST_PYTHON = (3, 8)
_OLDEST_GLIBC_MINOR = 17
# The package of a runtime, and those that have a provider which it has not.
_PACKAGES = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}
_PROVIDER_PACKAGES = {
    "TensorrtExecutionProvider": "onnxruntime-gpu",
    "CUDAExecutionProvider": "onnxruntime-gpu",
    "QNNExecutionProvider": "onnxruntime-qnn",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
}


@dataclass(frozen=True)
class Installed:
    """What ``set_up`` left on a device: versions of runtimes, and why others of the profile are not there."""

    python: str
    versions: dict[str, str]
    providers: dict[str, list[str]]
    skipped: dict[str, str]
    how: str


@dataclass(frozen=True)
class Board:
    """What decides which wheels run on a device."""

    python: str
    implementation: str
    machine: str
    bits: int
    libc: tuple[str, str]
    free_bytes: int
    base: str
    works: bool
    note: dict[str, Any] = field(default_factory=dict)

    @property
    def platforms(self) -> list[str]:
        """The platform tags of wheels that run there, newest first: PEP 600 and PEP 656."""
        name, version = self.libc
        if name == "glibc":
            minor = int(version.split(".")[1])
            tags = [f"manylinux_2_{number}" for number in range(minor, _OLDEST_GLIBC_MINOR - 1, -1)]
            return [f"{tag}_{self.machine}" for tag in [*tags, "manylinux2014"]]
        return [f"musllinux_1_{number}_{self.machine}" for number in (2, 1)]


@dataclass(frozen=True)
class _Wanted:
    """A runtime to install: its packages, and those of them that the caller gave as files."""

    runtime: str
    packages: tuple[str, ...]
    files: tuple[Path, ...]

    @property
    def choices(self) -> list[list[str]]:
        """What to ask of an index: the versions that are installed here, else the newest."""
        given = {_package_of(path) for path in self.files}
        missing = [package for package in self.packages if package not in given]
        pinned = [_pinned(package) for package in missing]
        return [pinned, missing] if pinned != missing else [missing]


def set_up(
    device: Device,
    profile: DeviceProfile,
    deadline: Deadline,
    *,
    offline: bool = False,
    wheels: Sequence[Path] = (),
    python: str = "python3",
    say: Callable[[str], None] = lambda text: None,
) -> Installed:
    """Install the profile's runtimes on its device; does nothing when the same call has installed them all.

    ``wheels`` are files to use instead of the index's, ``python`` the
    interpreter there. The profile's default runtime must succeed; others may
    be skipped. Raises DeviceError with the remedy, and UsageError for a
    runtime or wheel that nothing is known about.
    """
    check_python(python, "--python")
    if python.startswith("~"):
        raise UsageError(f"--python must be an absolute path on the device or a bare name, but got {python!r}")
    wanted = _wanted(profile, wheels)
    installer = _Installer(device, profile, python, deadline)
    board = installer.probe()
    asked = [[*each.choices[0], *(digest(path.read_bytes())[:12] for path in each.files)] for each in wanted]
    installed = set(board.note.get("versions", ())) == {each.runtime for each in wanted}
    if board.works and installed and board.note["asked"] == asked:
        return _installed(profile, {**board.note, "python": f"{board.base}/{VENV_PYTHON}"}, "was there already")
    if board.free_bytes < _NEEDED_BYTES:
        raise DeviceError(
            f"{profile.name}: {board.base} has {board.free_bytes / 1e6:.0f} MB left, runtimes need"
            f" {_NEEDED_BYTES / 1e6:.0f} MB; free space there or set work_dir in the profile"
        )
    if not offline and not wheels:
        say(f"{profile.name}: installing {', '.join(each.runtime for each in wanted)} by pip there")
        answer = installer.by_pip(wanted, asked)
        if "failed" not in answer:
            return _installed(profile, answer, "by pip there")
        say(f"{profile.name}: {answer['failed']}; fetching wheels here instead")
    _check_platform(board, profile)
    answer = installer.by_wheels(wanted, asked, board, say)
    if "failed" in answer:
        raise DeviceError(f"{profile.name}: {answer['failed']}; give other files with --wheel FILE")
    return _installed(profile, answer, "from wheels fetched here")


class _Installer:
    """Runs the script on the device; its answers have ``failed`` where something could not be done."""

    def __init__(self, device: Device, profile: DeviceProfile, python: str, deadline: Deadline) -> None:
        self._device, self._profile, self._python, self._deadline = device, profile, python, deadline
        self._base = profile.work_dir or BASE

    def probe(self) -> Board:
        answer = self._ask({"action": "probe"})
        if "failed" in answer:
            raise DeviceError(f"{self._profile.name}: {answer['failed']}; set another work_dir in the profile")
        board = Board(**{**answer, "libc": tuple(answer["libc"])})
        version = tuple(map(int, _short(board.python).split(".")))
        if board.implementation != "CPython" or version < _OLDEST_PYTHON:
            raise DeviceError(
                f"{self._profile.name}: {self._python} there is {board.implementation} {board.python};"
                " install CPython 3.8 or newer there, or name one with --python"
            )
        return board

    def by_pip(self, wanted: Sequence[_Wanted], asked: Any) -> dict[str, Any]:
        runtimes = [{"name": each.runtime, "requirements": each.choices} for each in wanted]
        return self._install(runtimes, {}, asked)

    def by_wheels(
        self, wanted: Sequence[_Wanted], asked: Any, board: Board, say: Callable[[str], None]
    ) -> dict[str, Any]:
        runtimes, skipped = [], {}
        with tempfile.TemporaryDirectory(prefix="edgenas-wheels-") as folder:
            for each in wanted:
                try:
                    files = _download(each, board, Path(folder) / each.runtime, self._deadline)
                except EdgeNASError as error:
                    if each.runtime == self._profile.default.runtime:
                        raise EdgeNASError(f"{self._profile.name}: {error}") from None
                    skipped[each.runtime] = str(error)
                    continue
                megabytes = sum(path.stat().st_size for path in files) / 1e6
                say(f"{self._profile.name}: sending {each.runtime}, {megabytes:.0f} MB")
                pushed = [self._device.push(path, path.name) for path in files]
                runtimes.append({"name": each.runtime, "wheels": pushed})
        return self._install(runtimes, skipped, asked)

    def _install(self, runtimes: list[dict[str, Any]], skipped: dict[str, str], asked: Any) -> dict[str, Any]:
        required = self._profile.default.runtime
        done = {"runtimes": runtimes, "required": required, "skipped": skipped, "asked": asked}
        return self._ask({"action": "install", **done})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        script = self._device.push(_SCRIPT, _SCRIPT.name)
        data = json.dumps({"base": self._base, **request}).encode() + b"\n"
        done = self._device.run([self._python, "-I", script], deadline=self._deadline, stdin=data)
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            said = done.stderr.strip().rpartition("\n")[2] or f"status {done.exit_status}"
            raise DeviceError(
                f"{self._profile.name}: {self._python} there cannot be used ({said});"
                " install Python 3.8 or newer there (sudo apt-get install python3), or name one with --python"
            ) from None
        return answer


def _installed(profile: DeviceProfile, answer: dict[str, Any], how: str) -> Installed:
    default = profile.default.runtime
    there = answer["providers"].get(default, [])
    absent = [provider for provider in profile.runtimes[default].providers if there and provider not in there]
    if absent:
        raise DeviceError(
            f"{profile.name}: {default} {answer['versions'][default]} was installed, but has no {', '.join(absent)}"
            f" (it has {', '.join(there)}); install a build that has, with --wheel FILE, or correct the profile"
        )
    return Installed(answer["python"], answer["versions"], answer["providers"], answer["skipped"], how)


def _wanted(profile: DeviceProfile, wheels: Sequence[Path]) -> list[_Wanted]:
    """What to install, the default runtime first."""
    given = {_package_of(path): path for path in wheels}
    wanted = []
    for runtime in sorted(profile.runtimes, key=lambda name: (name != profile.default.runtime, name)):
        if runtime not in _PACKAGES:
            known = suggest_nearest(runtime, sorted(_PACKAGES))
            raise UsageError(f"{profile.name}: nothing is known about installing runtime {runtime!r}{known}")
        special = (_PROVIDER_PACKAGES.get(provider) for provider in profile.runtimes[runtime].providers)
        package = next((name for name in special if name), _PACKAGES[runtime])
        # A file of any build of the runtime stands for the one that the index has.
        own = next((name for name in given if name.startswith(_PACKAGES[runtime])), package)
        packages = ("numpy", own)
        wanted.append(_Wanted(runtime, packages, tuple(given[name] for name in packages if name in given)))
    unused = [str(path) for path in wheels if not any(path in each.files for each in wanted)]
    if unused:
        raise UsageError(f"{', '.join(unused)}: is a wheel of no runtime of profile {profile.name}; leave it out")
    return wanted


def _package_of(wheel: Path) -> str:
    """The package of a wheel's file name. Raises UsageError when it is none."""
    if wheel.suffix != ".whl" or not wheel.is_file():
        raise UsageError(f"{wheel}: is no wheel file; give the path of a .whl file")
    return re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()


def _pinned(package: str) -> str:
    try:
        return f"{package}=={importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return package


def _check_platform(board: Board, profile: DeviceProfile) -> None:
    if board.bits == 32:
        raise DeviceError(
            f"{profile.name}: Python there is a 32-bit one ({board.machine}), for which there are no wheels of"
            f" {' or '.join(sorted(_PACKAGES.values()))}; install the 64-bit system, or tflite-runtime 2.14 yourself"
            " (Python 3.9 or 3.11) and name its interpreter as python in the profile"
        )


def _download(wanted: _Wanted, board: Board, folder: Path, deadline: Deadline) -> list[Path]:
    """The wheels of a runtime for a board, fetched into a folder by this machine's pip."""
    what = f"fetching wheels of {wanted.runtime} by pip here"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), "--python-version", _short(board.python)]
    command += [part for tag in board.platforms for part in ("--platform", tag)]
    problem = ""
    for requirements in filter(None, wanted.choices):
        deadline.check(what)
        try:
            done = subprocess.run(  # noqa: S603 - an argument list, no shell
                [*command, *requirements], capture_output=True, text=True, check=False, timeout=deadline.left
            )
        except subprocess.TimeoutExpired:
            deadline.check(what)
            raise
        if done.returncode == 0:
            problem = ""
            break
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR") or "No module" in line]
        problem = errors[-1].removeprefix("ERROR: ") if errors else "pip failed"
    if problem:
        raise EdgeNASError(
            f"no wheel of {', '.join(wanted.choices[-1])} for Python {_short(board.python)} on {board.machine}"
            f" could be fetched ({problem}); give files with --wheel FILE"
        )
    return [*wanted.files, *sorted(folder.glob("*.whl"))]


def _short(version: str) -> str:
    return ".".join(version.split(".")[:2])
