"""The address of a machine over SSH: the profile's ``connection``, completed by the user's ssh configuration."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgenas.devices.contract import Deadline
from edgenas.devices.profile import Connection
from edgenas.devices.ssh.known_hosts import DEFAULT_PORT, known_hosts_name
from edgenas.errors import DeviceError, UsageError

_HOST = re.compile(r"[A-Za-z0-9_.:%][A-Za-z0-9_.:%-]{0,254}")
_USER = re.compile(r"[A-Za-z0-9_.@\\+][A-Za-z0-9_.@\\+-]{0,63}")
_JUMP_HOST = re.compile(r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?P<host>\[[^\]]+\]|[^:@]+)(?::(?P<port>\d+))?")
_KEY_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa")
_KNOWN_HOSTS = "~/.ssh/known_hosts"
_TOKEN = re.compile(r"%([dhru%])")
_Options = dict[str, list[str]]  # what ``ssh -G`` prints: the values of each option, in order


@dataclass(frozen=True)
class SshConnection(Connection):
    """The ``connection`` of a profile of kind ``ssh``. Only ``host`` is required.

    ``host`` may be a name of the user's ssh configuration, which ``ssh -G``
    reads from ``config_file`` or its usual places. Values here take precedence
    over it. ``jump`` is a list as for ``ssh -J``: ``user@gate:2222,inner``.
    There is no password.
    """

    kind: Literal["ssh"]
    host: str
    user: str | None = None
    port: int | None = None
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
            for text in self.jump.split(","):
                self.parse_jump_host(text)

    def parse_jump_host(self, text: str, jump: str | None = None) -> SshConnection:
        """Return the connection to one machine of a jump list.

        Args:
            text: Its ``user@host:port``.
            jump: The jump list that leads to it.

        Raises:
            UsageError: ``text`` is no such address.
        """
        match = _JUMP_HOST.fullmatch(text.strip())
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
    """One machine, with all that ssh's configuration says about reaching it.

    ``agent`` is the socket of the ssh agent, or the variable that names it.
    The first of ``known_hosts`` is the user's own file; /dev/null where the
    configuration has none. ``jump_host`` is the machine that the connection
    goes through.
    """

    host: str
    port: int
    user: str
    host_key_alias: str | None
    identity_files: tuple[Path, ...]
    identities_only: bool
    agent: str | None
    known_hosts: tuple[Path, ...]
    jump_host: SshConnection | None

    @property
    def known_hosts_name(self) -> str:
        """The machine's name in known_hosts files."""
        return self.host_key_alias or known_hosts_name(self.host, self.port)


def resolve_endpoint(connection: SshConnection, deadline: Deadline) -> Endpoint:
    """Return how a machine is reached, by ``ssh -G``, or by ssh's defaults where no ssh client is installed here.

    Raises:
        DeviceError: ssh refuses its configuration, or the configuration needs what edgenas does not support.
    """
    options = _query_ssh_options(connection, deadline)
    if _first_value(options, "proxycommand"):
        raise DeviceError(f"{connection.host}: ProxyCommand is not supported; use ProxyJump or jump in the profile")
    host = _first_value(options, "hostname") or connection.host
    user = connection.user or _first_value(options, "user") or getpass.getuser()
    keys = [_replace_tokens(path, host, user) for path in options.get("identityfile", [])]
    if connection.identity_file:
        keys.insert(0, connection.identity_file)
    agent = _replace_tokens(_first_value(options, "identityagent") or "SSH_AUTH_SOCK", host, user)
    return Endpoint(
        host=host,
        port=connection.port or int(_first_value(options, "port") or DEFAULT_PORT),
        user=user,
        host_key_alias=_first_value(options, "hostkeyalias"),
        identity_files=tuple(dict.fromkeys(expand_home(path) for path in keys)),
        identities_only=_first_value(options, "identitiesonly") == "yes",
        agent=None if agent == "none" else agent,
        known_hosts=tuple(expand_home(file) for file in _known_hosts_files(connection, options)),
        jump_host=_last_jump_host(connection, connection.jump or _first_value(options, "proxyjump")),
    )


def expand_home(path: str) -> Path:
    """Return a path with its ``~`` replaced. Raise DeviceError for the home folder of an unknown user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise DeviceError(f"{path}: there is no such user here; correct the profile or ~/.ssh/config") from None


def _replace_tokens(path: str, host: str, user: str) -> str:
    """Replace ssh's tokens in a path of the configuration, which ``ssh -G`` prints as they are."""
    if "%" not in path:
        return path
    tokens = {"d": str(expand_home("~")), "h": host, "r": user, "u": getpass.getuser(), "%": "%"}
    return _TOKEN.sub(lambda token: tokens[token[1]], path)


def _known_hosts_files(connection: SshConnection, options: _Options) -> list[str]:
    """Return the user's own known_hosts files, then those of the whole machine."""
    if connection.known_hosts:
        return [connection.known_hosts]
    own = _split_paths(_first_value(options, "userknownhostsfile") or _KNOWN_HOSTS) or ["/dev/null"]
    return [*own, *_split_paths(_first_value(options, "globalknownhostsfile") or "none")]


def _last_jump_host(connection: SshConnection, jump: str | None) -> SshConnection | None:
    """Return the last machine of a jump list, whose own jump list is the rest."""
    if not jump or jump == "none":
        return None
    *rest, last = jump.split(",")
    return connection.parse_jump_host(last, ",".join(rest) or None)


def _query_ssh_options(connection: SshConnection, deadline: Deadline) -> _Options:
    program = shutil.which("ssh")
    if program is None:
        if connection.config_file:
            raise DeviceError(f"{connection.config_file}: needs an ssh client to be read; install openssh-client here")
        return {"identityfile": [f"~/.ssh/{name}" for name in _KEY_NAMES]}
    command = [program, "-G"]
    config_file = str(expand_home(connection.config_file)) if connection.config_file else None
    for flag, value in (("-F", config_file), ("-l", connection.user), ("-p", connection.port)):
        if value is not None:
            command += [flag, str(value)]
    options: _Options = {}
    for line in _run_ssh_config_query([*command, "--", connection.host], deadline, connection.host).splitlines():
        key, _, text = line.partition(" ")
        options.setdefault(key.lower(), []).append(text.strip())
    return options


def _run_ssh_config_query(command: list[str], deadline: Deadline, host: str) -> str:
    """Return what an ``ssh -G`` command prints."""
    try:
        done = subprocess.run(  # noqa: S603 - an argument list, no shell
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline.seconds_left,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{host}: ssh -G did not end in time; look for a slow Match exec in ~/.ssh/config") from None
    if done.returncode:
        reason = " ".join(done.stderr.split())[:400]
        raise DeviceError(f"{host}: ssh refuses its configuration ({reason}); correct ~/.ssh/config or config_file")
    return done.stdout


def _first_value(options: _Options, key: str) -> str | None:
    return next(iter(options.get(key, [])), None)


def _split_paths(text: str) -> list[str]:
    """Split a list of paths, which ``ssh -G`` prints without quotes: each begins with / or ~ and may hold blanks."""
    return [path for path in re.split(r" (?=[/~])", text) if path != "none"]
