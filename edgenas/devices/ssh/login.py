"""Logging in over SSH with keys: those of an ssh agent, and those of files, which may have a passphrase.

Passwords are never used. EDGENAS_SSH_PASSPHRASE opens an encrypted key where
there is no terminal to ask at.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import getpass
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgenas.devices.contract import Deadline
from edgenas.devices.ssh.config import Endpoint, expand_home
from edgenas.errors import DeviceError

if TYPE_CHECKING:
    from paramiko import PKey, Transport

_T = TypeVar("_T")
_ANSWER_SECONDS = 10.0
_AGENT_SECONDS = 8.0  # less, so that an agent's silence is not taken for the device's
PASSPHRASE = "EDGENAS_SSH_PASSPHRASE"  # noqa: S105 - the name of a variable


def authenticate(
    transport: Transport, endpoint: Endpoint, identity_file: Path | None, name: str, deadline: Deadline
) -> None:
    """Offer keys until the server accepts one: the profile's, then the agent's, then the ssh configuration's.

    Args:
        transport: The connection, whose host key was checked.
        endpoint: The machine that it leads to.
        identity_file: The private key that the profile names.
        name: The device's name in messages.
        deadline: The time for all of it, without the time to type a passphrase.

    Raises:
        DeviceError: No key was accepted; the message lists what was tried.
        paramiko.SSHException: The connection failed.
    """
    import paramiko

    user, tried, seconds_left = endpoint.user, [], deadline.seconds_left
    transport.auth_timeout = min(_ANSWER_SECONDS, seconds_left)
    with contextlib.suppress(paramiko.BadAuthenticationType):
        transport.auth_none(user)
        return
    problems: list[str] = []
    for label, key in _iter_keys_to_offer(endpoint, identity_file, problems, deadline):
        tried.append(label)
        transport.auth_timeout = min(_ANSWER_SECONDS, seconds_left)
        started = time.monotonic()
        try:
            if not transport.auth_publickey(user, key):
                return
            problems.append("the device wants a second proof besides the key")
        except paramiko.BadAuthenticationType as error:
            problems.append(f"the device takes {', '.join(error.allowed_types)} only")
        except paramiko.AuthenticationException as error:
            if "timeout" in str(error):
                raise
            if not transport.is_active():
                problems.append("the device hung up; name one with identity_file")
                break
        except paramiko.SSHException as error:
            if not isinstance(key, paramiko.AgentKey):
                raise
            problems.append(f"with it: {error}")
            break
        seconds_left -= time.monotonic() - started
    attempts = "; ".join([f"tried {', '.join(tried) or 'no key, there is none'}", *problems])
    raise DeviceError(
        f"{name}: {user}@{endpoint.host} refuses the login ({attempts});"
        f" check the user, and put a key there: ssh-copy-id -p {endpoint.port} {user}@{endpoint.host}"
    )


def _iter_keys_to_offer(
    endpoint: Endpoint, identity_file: Path | None, problems: list[str], deadline: Deadline
) -> Iterator[tuple[str, PKey]]:
    """Yield keys with their labels, in the order to offer them. A file whose key the agent has is not opened."""
    with _open_agent(endpoint.agent, problems, deadline) as agent_keys:
        unused = dict(agent_keys)
        if identity_file is not None:
            if not identity_file.is_file() and _read_public_key(identity_file) not in unused:
                raise DeviceError(f"{identity_file}: identity_file is not there; correct the profile")
            yield from _iter_key_of_file(identity_file, unused, problems)
        if not endpoint.identities_only:
            for public_key in list(unused):
                yield "the agent's key", unused.pop(public_key)
        for path in endpoint.identity_files:
            public_key = _read_public_key(path)
            if path != identity_file and (public_key in unused or (path.is_file() and public_key not in agent_keys)):
                yield from _iter_key_of_file(path, unused, problems)


def _iter_key_of_file(path: Path, agent_keys: dict[bytes, PKey], problems: list[str]) -> Iterator[tuple[str, PKey]]:
    """Yield the key of a file, from the agent if it has it, so that nobody is asked for a passphrase."""
    key = agent_keys.pop(_read_public_key(path), None) or _try_read_key(path, problems)
    if key is not None:
        yield str(path), key


def _read_public_key(path: Path) -> bytes:
    """Return the public key beside a private one, or of a .pub file itself; empty where there is none."""
    public = path if path.suffix == ".pub" else path.with_name(path.name + ".pub")
    with contextlib.suppress(OSError, ValueError, IndexError):
        return base64.b64decode(public.read_text().split()[1])
    return b""


@contextlib.contextmanager
def _open_agent(agent: str | None, problems: list[str], deadline: Deadline) -> Iterator[dict[bytes, PKey]]:
    """Connect to an ssh agent and give its keys by their public keys, none with a note in ``problems`` if it fails.

    ``agent`` is the path of its socket, or the variable that holds the path.
    """
    from paramiko import SSHException
    from paramiko.agent import AgentSSH

    variable = (agent or "").lstrip("$")
    path = os.environ.get(variable) if variable.isidentifier() else str(expand_home(agent or ""))
    if agent is None or not path:
        yield {}
        return
    connected: Any = AgentSSH()
    with socket.socket(socket.AF_UNIX) as unix_socket:
        unix_socket.settimeout(min(_AGENT_SECONDS, deadline.seconds_left))
        try:
            unix_socket.connect(path)
            connected._connect(_AgentSocket(unix_socket))
        except (FileNotFoundError, ConnectionRefusedError):
            pass  # a socket that an agent left behind, as common as no agent
        except (OSError, ValueError, struct.error, SSHException) as error:
            problems.append(f"the agent at {path}: {error}")
        yield {key.asbytes(): key for key in connected.get_keys()}


@dataclass(frozen=True)
class _AgentSocket:
    """The socket of an agent. Its timeouts are SSHException, so that they are not taken for the device's."""

    socket: socket.socket

    def send(self, data: bytes) -> None:
        self._call_with_ssh_errors(lambda: self.socket.sendall(data))

    def recv(self, size: int) -> bytes:
        return self._call_with_ssh_errors(lambda: self.socket.recv(size))

    def _call_with_ssh_errors(self, act: Callable[[], _T]) -> _T:
        from paramiko import SSHException

        try:
            return act()
        except OSError as error:
            raise SSHException(f"does not answer ({error})") from None


def _try_read_key(path: Path, problems: list[str]) -> PKey | None:
    """Return the key of a file; None, with a note in ``problems``, when it cannot be read."""
    import paramiko

    try:
        return _read_key_asking_passphrase(path, path.stat().st_mtime_ns)
    except paramiko.PasswordRequiredException:
        problems.append(f"{path} is encrypted: set {PASSPHRASE}, or add it to the agent with ssh-add")
    except (OSError, ValueError, paramiko.SSHException) as error:
        problems.append(f"{path} cannot be read ({' '.join(str(error).split())[:100] or type(error).__name__})")
    return None


@functools.lru_cache(maxsize=8)  # so that a passphrase is asked for once in a process
def _read_key_asking_passphrase(path: Path, modified_ns: int) -> PKey:
    """Return the key of a file, asking for its passphrase. ``modified_ns`` makes a changed file another key."""
    import paramiko

    try:
        return _read_key_file(path, None)
    except paramiko.PasswordRequiredException:
        passphrase = os.environ.get(PASSPHRASE)
        if passphrase is None and sys.stdin is not None and sys.stdin.isatty():
            passphrase = getpass.getpass(f"passphrase of {path}: ")
        if not passphrase:
            raise
    return _read_key_file(path, passphrase)


def _read_key_file(path: Path, passphrase: str | None) -> PKey:
    """Return the key of a file of any type. Raise the last type's exception, or PasswordRequiredException."""
    import paramiko

    problem: Exception = paramiko.SSHException("no private key")
    for key_type in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            key: PKey = key_type.from_private_key_file(str(path), passphrase)
        except paramiko.PasswordRequiredException:
            raise
        except (ValueError, IndexError, paramiko.SSHException) as error:
            problem = error
            continue
        certificate = path.with_name(path.name + "-cert.pub")
        if certificate.is_file():
            key.load_certificate(str(certificate))
        return key
    raise problem
