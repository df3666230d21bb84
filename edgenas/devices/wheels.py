"""Wheels of runtimes for another machine's Python: which packages, which versions, and fetching them by pip here."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgenas.devices.contract import Deadline
from edgenas.errors import EdgeNASError, UsageError
from edgenas.files import sha256_hex
from edgenas.runtimes import Runtime, load_runtime

if TYPE_CHECKING:
    from edgenas.devices.profile import DeviceProfile

GLIBC = re.compile(r"2\.(\d{1,3})(?!\d)", re.ASCII)  # a version of glibc
_OLDEST_GLIBC_MINOR = 17


@dataclass(frozen=True)
class Interpreter:
    """A Python that wheels must fit.

    Attributes:
        python_minor: Its version without the last number: ``3.11``.
        machine: The processor, as ``uname -m`` prints it.
        libc: The C library's name and version.
    """

    python_minor: str
    machine: str
    libc: tuple[str, str]

    @property
    def platforms(self) -> list[str]:
        """The platform tags of wheels that run there, newest first: PEP 600 and PEP 656."""
        name, version = self.libc
        if name == "glibc" and (minor := GLIBC.match(version)):
            tags = [f"manylinux_2_{number}" for number in range(int(minor[1]), _OLDEST_GLIBC_MINOR - 1, -1)]
            return [f"{tag}_{self.machine}" for tag in [*tags, "manylinux2014"]]
        return [f"musllinux_1_{number}_{self.machine}" for number in (2, 1)]


@dataclass(frozen=True)
class RuntimePackages:
    """A runtime to install: its packages, and the wheel files that the caller gave for some of them."""

    runtime: Runtime
    packages: tuple[str, ...]
    wheels: tuple[Path, ...]

    @property
    def requirements(self) -> list[list[str]]:
        """Lists of pip requirements in order of preference: the versions that are installed here, then the newest."""
        have_wheels = {_package_of(path) for path in self.wheels}
        newest = [package for package in self.packages if package not in have_wheels]
        pinned = [_pin_to_local_version(package) for package in newest]
        return [pinned, newest] if pinned != newest else [newest]

    @property
    def fingerprint(self) -> list[str]:
        """Texts that differ where another version or wheel is to be installed."""
        return [*self.requirements[0], *(sha256_hex(path.read_bytes())[:12] for path in self.wheels)]


def runtime_packages(profile: DeviceProfile, wheels: Sequence[Path]) -> list[RuntimePackages]:
    """Return the packages of the profile's runtimes, the default runtime first.

    Raises:
        UsageError: A runtime that edgenas does not know, or a wheel of none of them.
    """
    wheel_of = {_package_of(path): path for path in wheels}
    runtimes = []
    for name in sorted(profile.runtimes, key=lambda name: (name != profile.default.runtime, name)):
        runtime = load_runtime(name, f"{profile.name}: edgenas cannot install runtime")
        builds = (runtime.provider_packages.get(provider) for provider in profile.runtimes[name].providers)
        package = next((build for build in builds if build), runtime.package)
        # A wheel of any build of the runtime replaces the index's build.
        package = next((build for build in wheel_of if build.startswith(runtime.package)), package)
        packages = ("numpy", package)
        given = tuple(wheel_of[each] for each in packages if each in wheel_of)
        runtimes.append(RuntimePackages(runtime, packages, given))
    unused = [str(path) for path in wheels if not any(path in each.wheels for each in runtimes)]
    if unused:
        raise UsageError(f"{', '.join(unused)}: is a wheel of no runtime of profile {profile.name}; leave it out")
    return runtimes


def _package_of(wheel: Path) -> str:
    """Return the package in a wheel's file name. Raise UsageError when it is no wheel file."""
    if wheel.suffix != ".whl" or not wheel.is_file():
        raise UsageError(f"{wheel}: is no wheel file; give the path of a .whl file")
    return re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()


def _pin_to_local_version(package: str) -> str:
    try:
        return f"{package}=={importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return package


def download_wheels(runtime: RuntimePackages, interpreter: Interpreter, folder: Path, deadline: Deadline) -> list[Path]:
    """Return the wheels of a runtime for an interpreter, fetched into a folder by this machine's pip.

    Raises:
        EdgeNASError: There is none, or pip cannot fetch it.
        DeviceError: The deadline passed.
    """
    what = f"fetching wheels of {runtime.runtime.name} by pip here"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), "--python-version", interpreter.python_minor]
    command += [part for tag in interpreter.platforms for part in ("--platform", tag)]
    problem = ""
    for requirements in filter(None, runtime.requirements):
        deadline.check(what)
        try:
            done = subprocess.run(  # noqa: S603 - an argument list, no shell
                [*command, *requirements], capture_output=True, text=True, check=False, timeout=deadline.seconds_left
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
            f"no wheel of {', '.join(runtime.requirements[-1])} for Python {interpreter.python_minor}"
            f" on {interpreter.machine} could be fetched ({problem}); give files with --wheel FILE"
        )
    return [*runtime.wheels, *sorted(folder.glob("*.whl"))]
