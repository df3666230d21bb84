"""The keys of an ssh agent."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from edgenas.devices.contract import Deadline
from edgenas.devices.ssh.key_files import CERTIFICATE

if TYPE_CHECKING:
    from paramiko import PKey

_T = TypeVar("_T")
_AGENT_SECONDS = 8.0  # less than the device's, so that an agent's silence is not taken for the device's


@contextlib.contextmanager
def open_agent(path: str | None, problems: list[str], deadline: Deadline) -> Iterator[dict[bytes, PKey]]:
    """Connect to an ssh agent and give its keys, in its order, by their public keys or certificates.

    Args:
        path: The path of its socket; without one there are no keys.
        problems: Gets a note where the agent fails.
        deadline: The time for all of it.
    """
    from paramiko import SSHException
    from paramiko.agent import AgentSSH

    if path is None:
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
        keys = {key.blob: key for key in connected.get_keys()}
        for key in keys.values():
            if key.name.endswith(CERTIFICATE):
                key.inner_key = None  # it signs as the certificate, which may be all that the agent holds
        yield keys


@dataclass(frozen=True)
class _AgentSocket:
    """The socket of an agent. Its errors are SSHException, so that they are not taken for the device's; it ends then.

    An answer that comes late would be taken for that to the next request.
    """

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
            self.socket.close()
            raise SSHException(f"does not answer ({error})") from None
