"""The address of a machine over SSH: the profile's ``connection``, completed by the user's ssh configuration."""

from __future__ import annotations

import getpass
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgenas.devices.contract import Deadline
from edgenas.devices.profile import Connection
from edgenas.devices.ssh.known_hosts import DEFAULT_PORT, known_hosts_name
from edgenas.devices.ssh.options import SshOptions, expand_home
from edgenas.errors import UsageError

_HOST = re.compile(r"[A-Za-z0-9_.:%][A-Za-z0-9_.:%-]{0,254}")
_USER = re.compile(r"[A-Za-z0-9_.@\\+][A-Za-z0-9_.@\\+-]{0,63}(?<!\\)")  # no \ before what follows in a ProxyCommand
_JUMP_HOST = re.compile(r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?P<host>\[[^\]]+\]|[^:@]+)(?::(?P<port>\d+))?")
_KNOWN_HOSTS = "~/.ssh/known_hosts"


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

    Attributes:
        host: Its address.
        port: The port of its SSH server.
        user: The user to log in as.
        host_key_alias: Its name in known_hosts, in place of address and port.
        identity_file: The private key that the profile names.
        identity_files: The private keys of the configuration, or ssh's default ones.
        certificate_files: Certificates for these keys, or for keys of the agent.
        identities_only: The agent's other keys are not offered.
        agent: The socket of the ssh agent.
        known_hosts: Files of host keys; the first is the user's own, /dev/null where the configuration has none.
        revoked_host_keys: Files of host keys that are never accepted.
        proxy_command: The command line that the connection goes through.
        proxy_passes_socket: That command passes a connected socket and ends, by ProxyUseFdpass.
        jump_host: The machine that the connection goes through.
    """

    host: str
    port: int
    user: str
    host_key_alias: str | None
    identity_file: Path | None
    identity_files: tuple[Path, ...]
    certificate_files: tuple[Path, ...]
    identities_only: bool
    agent: str | None
    known_hosts: tuple[Path, ...]
    revoked_host_keys: tuple[Path, ...]
    proxy_command: str | None
    proxy_passes_socket: bool
    jump_host: SshConnection | None

    @property
    def known_hosts_name(self) -> str:
        """The machine's name in known_hosts files."""
        return self.host_key_alias or known_hosts_name(self.host, self.port)

    @property
    def known_hosts_name_without_port(self) -> str | None:
        """Its name in lines for any port, which count where none is for its port; None where it has no other name."""
        return None if self.host_key_alias or self.port == DEFAULT_PORT else self.host


def resolve_endpoint(connection: SshConnection, deadline: Deadline) -> Endpoint:
    """Return how a machine is reached, by ``ssh -G``, or by ssh's defaults where no ssh client is installed here.

    Raises:
        DeviceError: ssh refuses its configuration, or cannot be asked.
        UsageError: A jump host is no ``user@host:port``.
    """
    options = SshOptions(connection.host, connection.config_file, connection.user, connection.port, deadline)
    host = options.first("hostname") or connection.host
    user = connection.user or options.first("user") or getpass.getuser()
    port = connection.port or int(options.first("port") or DEFAULT_PORT)
    alias = options.first("hostkeyalias")
    tokens = {"%": "%", "h": host, "k": alias or connection.host, "n": connection.host, "p": str(port), "r": user}
    jump = connection.jump or options.expand_proxy("ProxyJump", tokens)
    return Endpoint(
        host=host,
        port=port,
        user=user,
        host_key_alias=alias,
        identity_file=expand_home(connection.identity_file) if connection.identity_file else None,
        identity_files=options.paths("identityfile"),
        certificate_files=options.paths("certificatefile"),
        identities_only=options.first("identitiesonly") == "yes",
        agent=_agent_socket(options.first("identityagent") or "SSH_AUTH_SOCK"),
        known_hosts=tuple(expand_home(file) for file in _known_hosts_files(connection, options)),
        revoked_host_keys=options.paths("revokedhostkeys"),
        proxy_command=None if jump else options.expand_proxy("ProxyCommand", tokens),
        proxy_passes_socket=options.first("proxyusefdpass") == "yes",
        jump_host=_last_jump_host(connection, jump),
    )


def _agent_socket(agent: str) -> str | None:
    """Return the path of the agent's socket: IdentityAgent is a path, or the variable that holds it."""
    if agent == "none":
        return None
    if agent == "SSH_AUTH_SOCK" or agent.startswith("$"):
        return os.environ.get(agent.removeprefix("$")) or None
    return str(expand_home(agent))


def _known_hosts_files(connection: SshConnection, options: SshOptions) -> list[str]:
    """Return the user's own known_hosts files, then those of the whole machine."""
    if connection.known_hosts:
        return [connection.known_hosts]
    own = _split_paths(options.first("userknownhostsfile") or _KNOWN_HOSTS) or ["/dev/null"]
    return [*own, *_split_paths(options.first("globalknownhostsfile") or "none")]


def _last_jump_host(connection: SshConnection, jump: str | None) -> SshConnection | None:
    """Return the last machine of a jump list, whose own jump list is the rest."""
    if jump in (None, "none"):
        return None
    *rest, last = jump.split(",")
    return connection.parse_jump_host(last, ",".join(rest) or None)


def _split_paths(text: str) -> list[str]:
    """Split a list of paths, which ``ssh -G`` prints without quotes: each begins with / or ~ and may hold blanks."""
    return [path for path in re.split(r" (?=[/~])", text) if path != "none"]
