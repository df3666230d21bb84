"""How a machine is reached over SSH: the profile's words, and what the user's own ssh configuration adds to them."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgenas.devices.contract import Deadline
from edgenas.devices.profile import Connection
from edgenas.errors import DeviceError, UsageError
from edgenas.files import StrictInt

_HOST = re.compile(r"[A-Za-z0-9_.:%][A-Za-z0-9_.:%-]{0,254}")
_USER = re.compile(r"[A-Za-z0-9_.@\\+][A-Za-z0-9_.@\\+-]{0,63}")
_HOP = re.compile(r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?P<host>\[[^\]]+\]|[^:@]+)(?::(?P<port>\d+))?")
_KEY_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa")
_KNOWN_HOSTS = "~/.ssh/known_hosts"
_NOWHERE = "/dev/null"
_TOKEN = re.compile(r"%([dhru%])")


@dataclass(frozen=True)
class SshConnection(Connection):
    """The ``connection`` of a profile of kind ``ssh``; only ``host`` is required.

    ``host`` may be a name of the user's ssh configuration, which ``ssh -G``
    reads from ``config_file`` or its usual places; what stands here goes
    before it. ``jump`` is a list like ssh's: ``user@gate:2222,inner``.
    Never a password.
    """

    kind: Literal["ssh"]
    host: str
    user: str | None = None
    port: StrictInt | None = None
    identity_file: str | None = None
    jump: str | None = None
    known_hosts: str | None = None
    config_file: str | None = None

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.host):
            raise UsageError(f"connection.host must be the name or address of a machine, but got {self.host!r}")
        if self.user is not None and not _USER.fullmatch(self.user):
            raise UsageError(f"connection.user must be the name of a user there, but got {self.user!r}")
        if self.port is not None and not 0 < self.port < 65536:
            raise UsageError(f"connection.port must be from 1 to 65535, but got {self.port}")
        if self.jump is not None:
            for hop in self.jump.split(","):
                self.hop(hop)

    def hop(self, text: str, jump: str | None = None) -> SshConnection:
        """The connection to one machine of a jump list. Raises UsageError."""
        match = _HOP.fullmatch(text.strip())
        if not match:
            raise UsageError(f"connection.jump must be user@host:port, several with commas, but got {text!r}")
        port = match["port"]
        return SshConnection(
            kind="ssh",
            host=match["host"].strip("[]"),
            user=match["user"],
            port=int(port) if port else None,
            jump=jump,
            known_hosts=self.known_hosts,
            config_file=self.config_file,
        )


@dataclass(frozen=True)
class Endpoint:
    """One machine, with everything that ssh's configuration says about reaching it.

    The first of ``known_hosts`` is the user's own; /dev/null where there is none.
    """

    host: str
    port: int
    user: str
    known_as: str
    identity_files: tuple[Path, ...]
    identities_only: bool
    agent: str | None
    known_hosts: tuple[Path, ...]
    before: SshConnection | None


def resolve(connection: SshConnection, deadline: Deadline) -> Endpoint:
    """Ask ``ssh -G`` how this machine is reached; without an ssh client here its usual values hold.

    Raises DeviceError when ssh refuses its configuration or the configuration
    wants what is not supported.
    """
    says = _configuration(connection, deadline)
    command = _first(says, "proxycommand")
    if command:
        raise DeviceError(f"{connection.host}: ProxyCommand is not supported; use ProxyJump or jump in the profile")
    host = _first(says, "hostname") or connection.host
    user = connection.user or _first(says, "user") or getpass.getuser()
    own = [connection.identity_file] if connection.identity_file else []
    keys = [*own, *(_with_tokens(path, host, user) for path in says.get("identityfile", []))]
    agent = _with_tokens(_first(says, "identityagent") or "SSH_AUTH_SOCK", host, user)
    return Endpoint(
        host=host,
        port=connection.port or int(_first(says, "port") or 22),
        user=user,
        known_as=_first(says, "hostkeyalias") or "",
        identity_files=tuple(dict.fromkeys(expand(path) for path in keys)),
        identities_only=_first(says, "identitiesonly") == "yes",
        agent=None if agent == "none" else agent,
        known_hosts=tuple(expand(file) for file in _known_hosts(connection, says)),
        before=_before(connection, connection.jump or _first(says, "proxyjump")),
    )


def expand(path: str) -> Path:
    """A path with its ``~``. Raises DeviceError for the home of a user that is not there."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise DeviceError(f"{path}: there is no such user here; correct the profile or ~/.ssh/config") from None


def _with_tokens(path: str, host: str, user: str) -> str:
    """A path of the configuration with ssh's tokens replaced, which ``ssh -G`` leaves as they are."""
    if "%" not in path:
        return path
    tokens = {"d": str(expand("~")), "h": host, "r": user, "u": getpass.getuser(), "%": "%"}
    return _TOKEN.sub(lambda token: tokens[token[1]], path)


def _known_hosts(connection: SshConnection, says: dict[str, list[str]]) -> list[str]:
    """The user's own files first, then those of the machine."""
    if connection.known_hosts:
        return [connection.known_hosts]
    own = _paths(_first(says, "userknownhostsfile") or _KNOWN_HOSTS) or [_NOWHERE]
    return [*own, *_paths(_first(says, "globalknownhostsfile") or "none")]


def _before(connection: SshConnection, jump: str | None) -> SshConnection | None:
    """The machine that is passed last on the way, reached by way of those that stand before it."""
    if not jump or jump == "none":
        return None
    *rest, last = jump.split(",")
    return connection.hop(last, ",".join(rest) or None)


def _configuration(connection: SshConnection, deadline: Deadline) -> dict[str, list[str]]:
    program = shutil.which("ssh")
    if program is None:
        if connection.config_file:
            raise DeviceError(f"{connection.config_file}: needs an ssh client to be read; install openssh-client here")
        return {"identityfile": [f"~/.ssh/{name}" for name in _KEY_NAMES]}
    command = [program, "-G"]
    config = str(expand(connection.config_file)) if connection.config_file else None
    for flag, value in (("-F", config), ("-l", connection.user), ("-p", connection.port)):
        if value is not None:
            command += [flag, str(value)]
    return _parse(_ask([*command, "--", connection.host], deadline, connection.host))


def _ask(command: Sequence[str], deadline: Deadline, host: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - an argument list, no shell
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline.left,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{host}: ssh -G did not end in time; look for a slow Match exec in ~/.ssh/config") from None
    if done.returncode:
        said = " ".join(done.stderr.split())[:400]
        raise DeviceError(f"{host}: ssh refuses its configuration ({said}); correct ~/.ssh/config or config_file")
    return done.stdout


def _parse(text: str) -> dict[str, list[str]]:
    says: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        says.setdefault(key.lower(), []).append(value.strip())
    return says


def _first(says: dict[str, list[str]], key: str) -> str | None:
    return next(iter(says.get(key, [])), None)


def _paths(text: str) -> list[str]:
    """The paths of a list, which ``ssh -G`` prints without quotes: each begins with / or ~, and may hold blanks."""
    return [path for path in re.split(r" (?=[/~])", text) if path != "none"]
