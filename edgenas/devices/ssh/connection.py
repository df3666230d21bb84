"""Opening an SSH connection: the way there by jump hosts, the host key, the login; all before one deadline."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgenas.devices.contract import Deadline
from edgenas.devices.ssh.config import Endpoint, SshConnection, expand, resolve
from edgenas.devices.ssh.known_hosts import HostKey, check, host_name, known_keys, look_up
from edgenas.devices.ssh.login import log_in
from edgenas.errors import DeviceError, EdgeNASError

if TYPE_CHECKING:
    from paramiko import Transport

SILENCE_SECONDS = 10.0  # a machine that says nothing for so long is given up
_MOST_HOPS = 8
_THREAD_SECONDS = 2.0


@dataclass
class Way:
    """The open connections to a machine: the jump hosts' and its own, the last one."""

    transports: list[Transport] = field(default_factory=list)

    def close(self) -> None:
        for transport in reversed(self.transports):
            transport.close()
            if transport.is_alive():
                transport.join(_THREAD_SECONDS)


def open_way(connection: SshConnection, name: str, deadline: Deadline) -> Way:
    """Connect and log in; ``name`` is what commands call it, for messages. The caller closes it. Raises DeviceError."""
    way = Way()
    try:
        for part, endpoint in _hops(connection, deadline):
            _check_key(_add(way, endpoint, name, deadline), endpoint, name)
            _log_in(way.transports[-1], part, endpoint, name, deadline)
    except BaseException:
        way.close()
        raise
    return way


def fetch_host_key(connection: SshConnection, deadline: Deadline) -> HostKey:
    """The key of the first machine on the way that is not known, or else of the device itself.

    Jump hosts that are known are logged in to, the device is not. Raises DeviceError.
    """
    way, name = Way(), connection.host
    try:
        hops = _hops(connection, deadline)
        for number, (part, endpoint) in enumerate(hops, 1):
            found = _host_key(_add(way, endpoint, name, deadline), endpoint)
            if found.state != "known" or number == len(hops):
                return found
            _log_in(way.transports[-1], part, endpoint, name, deadline)
    finally:
        way.close()
    raise AssertionError("a way has at least one machine")


def _hops(connection: SshConnection, deadline: Deadline) -> list[tuple[SshConnection, Endpoint]]:
    """The machines on the way, in order."""
    found: list[tuple[SshConnection, Endpoint]] = []
    current: SshConnection | None = connection
    while current is not None:
        if len(found) == _MOST_HOPS:
            raise DeviceError(f"{connection.host}: is reached by way of itself; correct ProxyJump or jump")
        endpoint = resolve(current, deadline)
        found.insert(0, (current, endpoint))
        current = endpoint.before
    return found


def _add(way: Way, endpoint: Endpoint, name: str, deadline: Deadline) -> Transport:
    """Connect to the next machine up to the exchange of keys."""
    import paramiko

    # paramiko prints tracebacks of what it also raises, unless somebody listens.
    log = logging.getLogger("paramiko")
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    with _told(endpoint, name, deadline):
        through = way.transports[-1] if way.transports else None
        sock = _socket(endpoint, deadline) if through is None else _channel(through, endpoint, deadline)
        transport = paramiko.Transport(sock)
        way.transports.append(transport)
        transport.banner_timeout = transport.auth_timeout = min(SILENCE_SECONDS, deadline.left)
        transport.handshake_timeout = min(SILENCE_SECONDS, deadline.left)
        _prefer_known(transport, endpoint)
        options = transport.get_security_options()
        options.ciphers = sorted(options.ciphers, key=lambda name: "gcm" not in name)  # files go half as fast by others
        with giving_up(transport, deadline):
            transport.start_client(timeout=deadline.left)
            transport.get_remote_server_key()
    return transport


def _socket(endpoint: Endpoint, deadline: Deadline) -> socket.socket:
    sock = _connected(_addresses(endpoint, deadline), deadline)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SILENCE_SECONDS * 1000))
    return sock


def _addresses(endpoint: Endpoint, deadline: Deadline) -> list[Any]:
    """What getaddrinfo knows of a name. One that does not return is left behind: nothing else ends it in time."""
    found: queue.Queue[list[Any] | OSError] = queue.Queue()

    def ask() -> None:
        try:
            found.put(socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM))
        except OSError as error:
            found.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = found.get(timeout=min(SILENCE_SECONDS, deadline.left))
    except queue.Empty:
        raise TimeoutError(f"the name server does not say where {endpoint.host} is") from None
    if isinstance(answer, OSError):
        raise answer
    return answer


def _connected(addresses: list[Any], deadline: Deadline) -> socket.socket:
    """A connection to the first address that takes one; raises the last one's OSError."""
    problem: OSError = ConnectionError("no address")
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(min(SILENCE_SECONDS, deadline.left))
            sock.connect(address)
        except OSError as error:
            sock.close()
            problem = error
        else:
            return sock
    raise problem


def _channel(through: Transport, endpoint: Endpoint, deadline: Deadline) -> Any:
    target = (endpoint.host, endpoint.port)
    return through.open_channel("direct-tcpip", target, ("127.0.0.1", 0), timeout=min(SILENCE_SECONDS, deadline.left))


def _prefer_known(transport: Transport, endpoint: Endpoint) -> None:
    """Ask for a key of a kind that is known: a host has several, and another than ssh recorded would look unknown."""
    options = transport.get_security_options()
    kinds = {entry.type for entry in known_keys(_known_as(endpoint), endpoint.known_hosts) if not entry.revoked}
    names = {f"rsa-sha2-{bits}" for bits in (256, 512)} | kinds if "ssh-rsa" in kinds else kinds
    options.key_types = sorted(options.key_types, key=lambda kind: kind not in names)


def _known_as(endpoint: Endpoint) -> str:
    return endpoint.known_as or host_name(endpoint.host, endpoint.port)


def _host_key(transport: Transport, endpoint: Endpoint) -> HostKey:
    key = transport.get_remote_server_key()
    return look_up(_known_as(endpoint), key.get_name(), key.get_base64(), endpoint.known_hosts)


def _check_key(transport: Transport, endpoint: Endpoint, name: str) -> None:
    check(_host_key(transport, endpoint), name)


def _log_in(transport: Transport, part: SshConnection, endpoint: Endpoint, name: str, deadline: Deadline) -> None:
    first = expand(part.identity_file) if part.identity_file else None
    with _told(endpoint, name, deadline):
        log_in(transport, endpoint, first, name, deadline)


@contextlib.contextmanager
def giving_up(transport: Transport, deadline: Deadline) -> Iterator[None]:
    """Close the connection when this takes too long: paramiko waits for some answers without end."""
    timer = threading.Timer(min(SILENCE_SECONDS, deadline.left), transport.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@contextlib.contextmanager
def _told(endpoint: Endpoint, name: str, deadline: Deadline) -> Iterator[None]:
    """Turn what can go wrong on the way into one line."""
    import paramiko
    from paramiko.ssh_exception import IncompatiblePeer

    where = f"{name}: {endpoint.host} port {endpoint.port}"
    try:
        yield
    except EdgeNASError:
        raise
    except socket.gaierror:
        raise DeviceError(f"{name}: no machine is called {endpoint.host}; correct connection.host") from None
    except ConnectionRefusedError:
        raise DeviceError(
            f"{where} refuses connections; start its SSH server (sudo systemctl enable --now ssh), or correct the port"
        ) from None
    except paramiko.ChannelException as error:
        raise DeviceError(f"{where} cannot be reached from the jump host ({error.text}); check both") from None
    except IncompatiblePeer as error:
        raise DeviceError(f"{where} speaks another SSH ({error}); bring its SSH server up to date") from None
    except (TimeoutError, EOFError, paramiko.SSHException, OSError) as error:
        deadline.check(f"{where}: connecting")
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DeviceError(
            f"{where} gives no answer ({said}); check that it is switched on, connected and not stuck"
        ) from None
