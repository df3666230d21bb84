"""Installing runtimes on a device, in a virtual environment of edgenas's own there.

The device's own pip installs them where it exists and reaches an index.
Otherwise wheels for the device's platform are fetched here, sent, and unpacked
by its Python, which needs no pip, index or ensurepip there. Runtimes are
installed with numpy and without their other dependencies, which only their
tools need.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from annotated_types import MaxLen

from edgenas import on_device
from edgenas.devices.answers import (
    FIRST_PROBLEM_ONLY,
    MAX_ENTRIES,
    STRICT,
    FreeText,
    PathText,
    Texts,
    VersionText,
    Word,
    Words,
    read_answer,
)
from edgenas.devices.contract import Deadline, Device
from edgenas.devices.profile import DeviceProfile, check_python_path
from edgenas.devices.wheels import GLIBC, Interpreter, RuntimePackages, download_wheels, runtime_packages
from edgenas.errors import DeviceError, EdgeNASError, UsageError
from edgenas.files import Count, ShortText
from edgenas.on_device.install import REFUSED_STATUS
from edgenas.on_device.work_folder import WorkFolder
from edgenas.runtimes import all_runtimes

DEFAULT_WORK_DIR = "~/.cache/edgenas"  # on a device whose profile names no work_dir
VENV_PYTHON = "venv/bin/python"  # below the work_dir; a profile without python uses it
PYTHON_BY_DEFAULT = "python3"
_SCRIPT = Path(on_device.__file__).with_name("install.py")
_NEEDED_BYTES = 400_000_000
_OLDEST_PYTHON = (3, 8)

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class InstalledRuntimes:
    """The runtimes on a device after ``install_runtimes``.

    ``python`` is the interpreter that has them, ``versions`` and ``providers``
    are by runtime, ``skipped`` gives the reason for each runtime of the
    profile that could not be installed, ``how`` is printed.
    """

    python: str
    versions: Mapping[str, str]
    providers: Mapping[str, Sequence[str]]
    skipped: Mapping[str, str]
    how: str


@dataclass(frozen=True)
class Failure:
    """An answer of the install script: why it could not be done."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    failed: FreeText


@dataclass(frozen=True)
class Environment:
    """What the install script has put into an environment, by runtime; ``asked`` is what it was asked for."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    versions: Texts
    providers: Annotated[Mapping[ShortText, Words], MaxLen(MAX_ENTRIES)]
    skipped: Annotated[Mapping[ShortText, FreeText], MaxLen(MAX_ENTRIES)]
    asked: Annotated[list[Words], FIRST_PROBLEM_ONLY, MaxLen(MAX_ENTRIES)]


@dataclass(frozen=True)
class ProbeResult:
    """The answer of the install script to ``probe``: the interpreter's platform, and an earlier installation.

    ``noexec``: no runtime can be loaded from the disk of ``base``, as it is mounted.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    python: VersionText
    implementation: Word
    machine: Word
    bits: Literal[32, 64]
    libc: tuple[ShortText, ShortText]
    free_bytes: Count
    noexec: bool
    base: PathText
    works: bool
    note: Environment | None = None

    def __post_init__(self) -> None:
        name, version = self.libc
        if name == "glibc" and not GLIBC.match(version):
            raise ValueError(f"libc: {version!r} is no version of glibc")

    @property
    def python_minor(self) -> str:
        """Python's version without its last number: ``3.11``."""
        return ".".join(self.python.split(".")[:2])

    @property
    def interpreter(self) -> Interpreter:
        """What decides which wheels run there."""
        return Interpreter(self.python_minor, self.machine, self.libc)


def install_runtimes(
    device: Device,
    profile: DeviceProfile,
    deadline: Deadline,
    *,
    offline: bool = False,
    wheels: Sequence[Path] = (),
    python: str = PYTHON_BY_DEFAULT,
    say: Callable[[str], None] = lambda text: None,
) -> InstalledRuntimes:
    """Install the profile's runtimes on its device. Do nothing when an equal call has installed them all.

    Args:
        device: The connected device.
        profile: Its profile. The default runtime must succeed, others may be skipped.
        deadline: The time for all of it.
        offline: Fetch wheels on this machine, without trying the device's pip.
        wheels: Wheel files to use instead of the index's.
        python: The interpreter on the device to make the environment with.
        say: Called with a line about each longer step.

    Raises:
        DeviceError: The device cannot be installed on; the message has the remedy.
        UsageError: A runtime or a wheel that edgenas does not know.
    """
    check_python_path(python, "--python")
    if python.startswith("~"):
        raise UsageError(f"--python must be an absolute path on the device or a bare name, but got {python!r}")
    runtimes = runtime_packages(profile, wheels)
    installer = _Installer(device, profile, python, deadline)
    probe = installer.probe()
    fingerprint = [each.fingerprint for each in runtimes]
    made = f"{probe.base}/{VENV_PYTHON}"
    note, wanted = probe.note, {each.runtime.name for each in runtimes}
    if probe.works and note and set(note.versions) == wanted and note.asked == fingerprint:
        return checked_installed_runtimes(profile, note, made, "already installed")
    if probe.noexec:
        raise DeviceError(
            f"{profile.name}: {probe.base} is on a disk that is mounted noexec, so no runtime can be loaded from it;"
            " set work_dir in the profile to a folder on another disk, such as /opt/edgenas"
        )
    if probe.free_bytes < _NEEDED_BYTES:
        raise DeviceError(
            f"{profile.name}: {probe.base} has {probe.free_bytes / 1e6:.0f} MB left, runtimes need"
            f" {_NEEDED_BYTES / 1e6:.0f} MB; free space there or set work_dir in the profile"
        )
    if not offline and not wheels:
        say(f"{profile.name}: installing {', '.join(each.runtime.name for each in runtimes)} by pip there")
        answer = installer.install_by_pip(runtimes, fingerprint)
        if not isinstance(answer, Failure):
            return checked_installed_runtimes(profile, answer, made, "by pip on the device")
        say(f"{profile.name}: {answer.failed}; fetching wheels here instead")
    if probe.bits == 32:
        packages = " or ".join(sorted(each.package for each in all_runtimes()))
        raise DeviceError(
            f"{profile.name}: Python there is a 32-bit one ({probe.machine}), for which there are no wheels of"
            f" {packages}; install the 64-bit system, or tflite-runtime 2.14 yourself"
            " (Python 3.9 or 3.11) and name its interpreter as python in the profile"
        )
    answer = installer.install_wheels(runtimes, fingerprint, probe, say)
    if isinstance(answer, Failure):
        raise DeviceError(f"{profile.name}: {answer.failed}; give other files with --wheel FILE")
    return checked_installed_runtimes(profile, answer, made, "from wheels fetched here")


class _Installer:
    """Runs the install script on the device."""

    def __init__(self, device: Device, profile: DeviceProfile, python: str, deadline: Deadline) -> None:
        self._device, self._profile, self._python, self._deadline = device, profile, python, deadline

    def probe(self) -> ProbeResult:
        """Return the device's platform and installation. Raise DeviceError for an unsupported Python."""
        checks = {each.name: each.version_program for each in all_runtimes()}
        probe = self._run_script(ProbeResult, {"action": "probe", "checks": checks})
        if isinstance(probe, Failure):
            raise DeviceError(f"{self._profile.name}: {probe.failed}; set another work_dir in the profile")
        version = tuple(map(int, probe.python_minor.split(".")))
        if probe.implementation != "CPython" or version < _OLDEST_PYTHON:
            raise DeviceError(
                f"{self._profile.name}: {self._python} there is {probe.implementation} {probe.python};"
                " install CPython 3.8 or newer there, name one with --python, or bring one along with --self-contained"
            )
        return probe

    def install_by_pip(self, runtimes: Sequence[RuntimePackages], fingerprint: Any) -> Environment | Failure:
        requests = [{**_describe_runtime(each), "requirements": each.requirements} for each in runtimes]
        return self._install(requests, {}, fingerprint)

    def install_wheels(
        self,
        runtimes: Sequence[RuntimePackages],
        fingerprint: Any,
        probe: ProbeResult,
        say: Callable[[str], None],
    ) -> Environment | Failure:
        """Fetch wheels here, push them and install them. Raise EdgeNASError without one of the default runtime."""
        requests, skipped = [], {}
        with WorkFolder() as folder:
            for each in runtimes:
                try:
                    files = download_wheels(each, probe.interpreter, folder / each.runtime.name, self._deadline)
                except EdgeNASError as error:
                    if each.runtime.name == self._profile.default.runtime:
                        raise EdgeNASError(f"{self._profile.name}: {error}") from None
                    skipped[each.runtime.name] = str(error)
                    continue
                megabytes = sum(path.stat().st_size for path in files) / 1e6
                say(f"{self._profile.name}: sending {each.runtime.name}, {megabytes:.0f} MB")
                pushed = [self._device.push(path, path.name) for path in files]
                requests.append({**_describe_runtime(each), "wheels": pushed})
        return self._install(requests, skipped, fingerprint)

    def _install(
        self, requests: list[dict[str, Any]], skipped: dict[str, str], fingerprint: Any
    ) -> Environment | Failure:
        required = self._profile.default.runtime
        installing = {"runtimes": requests, "required": required, "skipped": skipped, "asked": fingerprint}
        return self._run_script(Environment, {"action": "install", **installing})

    def _run_script(self, kind: type[Kind], request: dict[str, Any]) -> Kind | Failure:
        script = self._device.push(_SCRIPT, _SCRIPT.name)
        base = self._profile.work_dir or DEFAULT_WORK_DIR
        stdin = json.dumps({"base": base, **request}).encode() + b"\n"
        done = self._device.run([self._python, "-I", script], deadline=self._deadline, stdin=stdin)
        if done.exit_status == REFUSED_STATUS:
            return read_answer(Failure, done.stdout, self._profile.name)
        if done.was_killed:
            raise DeviceError(f"{self._profile.name}: setup was {done.failure}; free memory there, then run it again")
        if done.exit_status or not done.stdout:
            raise DeviceError(
                f"{self._profile.name}: {self._python} there cannot be used ({done.failure});"
                " install Python 3.8 or newer there (sudo apt-get install python3), or name one with --python"
            )
        return read_answer(kind, done.stdout, self._profile.name)


def checked_installed_runtimes(
    profile: DeviceProfile, installed: Environment, python: str, how: str
) -> InstalledRuntimes:
    """Return what was installed. Raise DeviceError when the default runtime, or one of its providers, is not there."""
    default = profile.default.runtime
    if default not in installed.versions:
        raise DeviceError(f"{profile.name}: answered nonsense (versions: {default} is missing); try again")
    providers = installed.providers.get(default, [])
    missing = [name for name in profile.runtimes[default].providers if providers and name not in providers]
    if missing:
        raise DeviceError(
            f"{profile.name}: {default} {installed.versions[default]} was installed, but has no {', '.join(missing)}"
            f" (it has {', '.join(providers)}); install a build that has, with --wheel FILE, or correct the profile"
        )
    return InstalledRuntimes(python, installed.versions, installed.providers, installed.skipped, how)


def _describe_runtime(packages: RuntimePackages) -> dict[str, str]:
    """Return what the install script must know of a runtime, whatever installs it."""
    return {"name": packages.runtime.name, "check": packages.runtime.version_program}
