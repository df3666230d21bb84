"""Logging in over SSH with keys: those of an agent, and those of files, whose passphrase is asked for or given.

Passwords are never used. EDGENAS_SSH_PASSPHRASE opens an encrypted key where
nobody can be asked.
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
from edgenas.devices.ssh.config import Endpoint, expand
from edgenas.errors import DeviceError

if TYPE_CHECKING:
    from paramiko import PKey, Transport

_T = TypeVar("_T")
_ANSWER_SECONDS = 10.0
_AGENT_SECONDS = 8.0  # less, so that an agent's silence is not taken for the device's
PASSPHRASE = "EDGENAS_SSH_PASSPHRASE"  # noqa: S105 - the name of a variable


def log_in(transport: Transport, endpoint: Endpoint, first: Path | None, name: str, deadline: Deadline) -> None:
    """Offer keys until one is accepted: ``first``, then the agent's, then those of the configuration's files.

    Raises DeviceError saying what was tried, and paramiko's exceptions when
    the connection fails.
    """
    import paramiko

    user, tried, left = endpoint.user, [], deadline.left
    transport.auth_timeout = min(_ANSWER_SECONDS, left)
    with contextlib.suppress(paramiko.BadAuthenticationType):
        transport.auth_none(user)
        return
    problems: list[str] = []
    for label, key in _keys(endpoint, first, problems, deadline):
        tried.append(label)
        transport.auth_timeout = min(_ANSWER_SECONDS, left)
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
        left -= time.monotonic() - started  # what a person takes to type a passphrase does not count
    said = "; ".join([f"tried {', '.join(tried) or 'no key, there is none'}", *problems])
    raise DeviceError(
        f"{name}: {user}@{endpoint.host} does not let us in ({said});"
        f" check the user, and put a key there: ssh-copy-id -p {endpoint.port} {user}@{endpoint.host}"
    )


def _keys(
    endpoint: Endpoint, first: Path | None, problems: list[str], deadline: Deadline
) -> Iterator[tuple[str, PKey]]:
    """Keys in the order to offer them; a file whose key the agent has is not opened."""
    with _agent_keys(endpoint.agent, problems, deadline) as of_agent:
        left = dict(of_agent)
        if first is not None:
            if not first.is_file() and _public_half(first) not in left:
                raise DeviceError(f"{first}: identity_file is not there; correct the profile")
            yield from _key_of(first, left, problems)
        if not endpoint.identities_only:
            for blob in list(left):
                yield "the agent's key", left.pop(blob)
        for path in endpoint.identity_files:
            public = _public_half(path)
            if path != first and (public in left or (path.is_file() and public not in of_agent)):
                yield from _key_of(path, left, problems)


def _key_of(path: Path, of_agent: dict[bytes, PKey], problems: list[str]) -> Iterator[tuple[str, PKey]]:
    """The key of a file: taken from the agent's if it is there, so that no passphrase is asked for."""
    key = of_agent.pop(_public_half(path), None) or _load(path, problems)
    if key is not None:
        yield str(path), key


def _public_half(path: Path) -> bytes:
    """The public key beside a private one, or the file's own; empty where there is none."""
    public = path if path.suffix == ".pub" else path.with_name(path.name + ".pub")
    with contextlib.suppress(OSError, ValueError, IndexError):
        return base64.b64decode(public.read_text().split()[1])
    return b""


@contextlib.contextmanager
def _agent_keys(agent: str | None, problems: list[str], deadline: Deadline) -> Iterator[dict[bytes, PKey]]:
    """The keys of the agent at a socket, by its path or the name of the variable that holds it, by public half.

    An agent that is stuck has none, with a note of the problem.
    """
    from paramiko import SSHException
    from paramiko.agent import AgentSSH

    variable = (agent or "").lstrip("$")
    place = os.environ.get(variable) if variable.isidentifier() else str(expand(agent or ""))
    if agent is None or not place:
        yield {}
        return
    found: Any = AgentSSH()
    with socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(min(_AGENT_SECONDS, deadline.left))
        try:
            talk.connect(place)
            found._connect(_AgentTalk(talk))
        except (FileNotFoundError, ConnectionRefusedError):
            pass  # a socket that an agent left behind, as common as no agent
        except (OSError, ValueError, struct.error, SSHException) as error:
            problems.append(f"the agent at {place}: {error}")
        yield {key.asbytes(): key for key in found.get_keys()}


@dataclass(frozen=True)
class _AgentTalk:
    """The socket of an agent, also of one that signs: its silence is not the device's, and ends in time."""

    socket: socket.socket

    def send(self, data: bytes) -> None:
        self._bounded(lambda: self.socket.sendall(data))

    def recv(self, size: int) -> bytes:
        return self._bounded(lambda: self.socket.recv(size))

    def _bounded(self, act: Callable[[], _T]) -> _T:
        from paramiko import SSHException

        try:
            return act()
        except OSError as error:
            raise SSHException(f"does not answer ({error})") from None


def _load(path: Path, problems: list[str]) -> PKey | None:
    """The key of a file; None, with a note of the problem, when it cannot be read."""
    import paramiko

    try:
        return _load_file(path, path.stat().st_mtime_ns)
    except paramiko.PasswordRequiredException:
        problems.append(f"{path} is encrypted: set {PASSPHRASE}, or add it to the agent with ssh-add")
    except (OSError, ValueError, paramiko.SSHException) as error:
        problems.append(f"{path} cannot be read ({' '.join(str(error).split())[:100] or type(error).__name__})")
    return None


@functools.lru_cache(maxsize=8)
def _load_file(path: Path, changed: int) -> PKey:
    """Kept for this process, so that a passphrase is asked for once; ``changed`` tells one content from another."""
    import paramiko

    try:
        return _parse(path, None)
    except paramiko.PasswordRequiredException:
        passphrase = _passphrase(path)
        if not passphrase:
            raise
    return _parse(path, passphrase)


def _passphrase(path: Path) -> str | None:
    given = os.environ.get(PASSPHRASE)
    if given is None and sys.stdin is not None and sys.stdin.isatty():
        given = getpass.getpass(f"passphrase of {path}: ")
    return given


def _parse(path: Path, passphrase: str | None) -> PKey:
    """Try every kind of key; raises the exception of the last, or PasswordRequiredException."""
    import paramiko

    problem: Exception = paramiko.SSHException("no private key")
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            key: PKey = kind.from_private_key_file(str(path), passphrase)
        except paramiko.PasswordRequiredException:
            raise
        except (ValueError, IndexError, paramiko.SSHException) as error:
            problem = error
            continue
        holdout = path.with_name(path.name + "-cert.pub")
        if holdout.is_file():
            key.load_certificate(str(holdout))
        return key
    raise problem
