"""Fetching packages of Debian for another machine, by this machine's apt-get and from its own mirror.

Nothing is installed here, and apt's own state is not touched: it gets a
configuration, package lists and a list of installed packages (an empty one) of
its own. Needs no root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgenas.devices.contract import Deadline
from edgenas.errors import EdgeNASError, UsageError

_PROGRAMS = ("apt-get", "apt-config", "dpkg-deb")
_REMEDY = "give a userland that was made on a Debian machine with --userland FILE"
_CONFIG = """
Dir::Etc::Main "/dev/null";
Dir::Etc::Parts "/dev/null";
Dir::Etc::SourceList "{folder}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "{folder}/state";
Dir::State::Status "{folder}/status";
Dir::Cache "{folder}/cache";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Get::Assume-Yes "true";
Acquire::Languages "none";
"""


def is_debian_here() -> bool:
    """Return whether this machine has apt and dpkg."""
    return all(shutil.which(program) for program in _PROGRAMS)


def fetch_packages(
    names: Sequence[str], *, suite: str, architecture: str, folder: Path, deadline: Deadline
) -> list[Path]:
    """Fetch packages of a Debian suite and all that they depend on.

    Args:
        names: Packages.
        suite: Such as ``bookworm``.
        architecture: Debian's name of it: ``arm64`` or ``amd64``.
        folder: An empty folder of the caller's, for apt's files and the packages.
        deadline: The time for all of it.

    Returns:
        The package files.

    Raises:
        UsageError: This machine has no apt, or no mirror of Debian.
        EdgeNASError: apt cannot fetch them.
    """
    if not is_debian_here():
        raise UsageError(f"no apt-get and dpkg-deb here to fetch Debian's packages with; {_REMEDY}")
    mirror = find_debian_mirror(deadline)
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"deb {mirror} {suite} main\n")
    inherited = _run(["apt-config", "dump", "Acquire"], deadline)  # proxies, among others
    (folder / "apt.conf").write_text(inherited + _CONFIG.format(folder=folder, architecture=architecture))
    environment = {"APT_CONFIG": str(folder / "apt.conf"), "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    _run(["apt-get", "update", "--quiet"], deadline, environment)
    _run(["apt-get", "install", "--quiet", "--download-only", *names], deadline, environment)
    return sorted((folder / "cache/archives").glob("*.deb"))


def unpack_packages(packages: Iterable[Path], folder: Path, deadline: Deadline) -> None:
    """Unpack package files into one folder. Their scripts do not run."""
    for package in packages:
        _run(["dpkg-deb", "--extract", str(package), str(folder)], deadline)


def find_debian_mirror(deadline: Deadline) -> str:
    """Return the address that apt here fetches Debian's packages from.

    Raises:
        UsageError: apt has none.
    """
    listing = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(LABEL)", "Created-By: Packages"]
    for line in _run(listing, deadline).splitlines():
        address, _, label = line.partition(" ")  # a label may hold blanks: Debian Backports
        if label == "Debian":
            return address
    raise UsageError(f"apt here has no mirror of Debian among its sources, or never read it; {_REMEDY}")


def _run(command: Sequence[str], deadline: Deadline, environment: dict[str, str] | None = None) -> str:
    """Run one of Debian's programs and return what it prints. Raise EdgeNASError with its last error."""
    what = f"{' '.join(command[:2])} here"
    deadline.check(what)
    try:
        done = subprocess.run(  # noqa: S603 - an argument list, no shell
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=deadline.seconds_left,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        deadline.check(what)
        raise
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith(("E: ", "W: ", "dpkg"))]
        raise EdgeNASError(f"{what} failed ({errors[-1] if errors else f'status {done.returncode}'})")
    return done.stdout
