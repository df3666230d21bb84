"""Opening an SSH connection, through any jump hosts: network, host keys and logins, all before one deadline."""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgenas.devices.answers import MAX_PACKET_BYTES
from edgenas.devices.channel import SILENCE_SECONDS
from edgenas.devices.contract import Deadline
from edgenas.devices.ssh.config import Endpoint, SshConnection, resolve_endpoint
from edgenas.devices.ssh.known_hosts import (
    HostKey,
    check_host_key,
    find_revoking_file,
    look_up_host_key,
    read_known_keys,
)
from edgenas.devices.ssh.login import authenticate
from edgenas.devices.ssh.proxy import ProxyCommandPipes, receive_socket
from edgenas.errors import DeviceError, EdgeNASError, one_line

if TYPE_CHECKING:
    from paramiko import Transport
    from paramiko.packet import Packetizer

_MOST_HOPS = 8
_THREAD_SECONDS = 2.0


@dataclass
class SshRoute:
    """The open connections to a machine: those to the jump hosts in order, then its own."""

    transports: list[Transport] = field(default_factory=list)

    @property
    def device_transport(self) -> Transport:
        """The connection to the machine itself."""
        return self.transports[-1]

    def close(self) -> None:
        """Close all connections, the machine's first."""
        for transport in reversed(self.transports):
            transport.close()
            if transport.is_alive():
                transport.join(_THREAD_SECONDS)


def open_route(connection: SshConnection, name: str, deadline: Deadline) -> SshRoute:
    """Connect to a machine and log in. The caller closes the route.

    Args:
        connection: How the machine is reached.
        name: Its name as an argument of commands, for messages.
        deadline: The time for all of it.

    Raises:
        DeviceError: A machine on the way cannot be reached, is not known or refuses the login.
    """
    route = SshRoute()
    try:
        for endpoint in _resolve_hops(connection, deadline):
            transport = _connect_next_hop(route, endpoint, name, deadline)
            check_host_key(_look_up_shown_host_key(transport, endpoint), name)
            _authenticate(transport, endpoint, name, deadline)
    except BaseException:
        route.close()
        raise
    return route


def fetch_host_key(connection: SshConnection, deadline: Deadline) -> HostKey:
    """Return the host key of the first machine on the way whose key is not known, or of the device itself.

    Known jump hosts are logged in to. The device is not.

    Raises:
        DeviceError: A machine on the way cannot be reached, or a jump host refuses the login.
    """
    route, name = SshRoute(), connection.host
    try:
        hops = _resolve_hops(connection, deadline)
        for number, endpoint in enumerate(hops, 1):
            transport = _connect_next_hop(route, endpoint, name, deadline)
            host_key = _look_up_shown_host_key(transport, endpoint)
            if host_key.state != "known" or number == len(hops):
                return host_key
            _authenticate(transport, endpoint, name, deadline)
    finally:
        route.close()
    raise AssertionError("a route has at least one machine")


def peer_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of a connection that fails, whatever its other end sends.

    A packet that is none of SSH ends paramiko's thread with an exception of its parsing, which is raised again in ours.
    """
    import paramiko

    return (paramiko.SSHException, EOFError, OSError, ValueError, LookupError, ArithmeticError, struct.error)


@contextlib.contextmanager
def closing_on_timeout(transport: Transport, deadline: Deadline) -> Iterator[None]:
    """Close a connection when the body takes too long, because paramiko waits for some answers without end."""
    timer = threading.Timer(min(SILENCE_SECONDS, deadline.seconds_left), transport.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _resolve_hops(connection: SshConnection, deadline: Deadline) -> list[Endpoint]:
    """Return the machines on the way, in order; the device is the last."""
    hops: list[Endpoint] = []
    current: SshConnection | None = connection
    while current is not None:
        if len(hops) == _MOST_HOPS:
            raise DeviceError(f"{connection.host}: is reached by way of itself; correct ProxyJump or jump")
        hops.insert(0, resolve_endpoint(current, deadline))
        current = hops[0].jump_host
    return hops


def _connect_next_hop(route: SshRoute, endpoint: Endpoint, name: str, deadline: Deadline) -> Transport:
    """Connect to the next machine of a route, up to the exchange of keys."""
    import paramiko

    # paramiko logs tracebacks of what it also raises, unless there is a handler.
    log = logging.getLogger("paramiko")
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    with _raising_device_errors(endpoint, name, deadline):
        sock = _open_stream(route, endpoint, deadline)
        transport = paramiko.Transport(sock, packetizer_class=_bounded_packetizer_class())
        route.transports.append(transport)
        seconds = min(SILENCE_SECONDS, deadline.seconds_left)
        transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = seconds
        _prefer_known_key_types(transport, endpoint)
        options = transport.get_security_options()
        # Other ciphers halve the speed of files.
        options.ciphers = sorted(options.ciphers, key=lambda cipher: "gcm" not in cipher)
        try:
            with closing_on_timeout(transport, deadline):
                transport.start_client(timeout=deadline.seconds_left)
                transport.get_remote_server_key()
        except peer_errors():
            status = sock.exit_status() if isinstance(sock, ProxyCommandPipes) else None
            if status is None:
                raise
            raise DeviceError(
                f"{name}: the ProxyCommand for {endpoint.host} ended with status {status} before the login;"
                " correct it in ~/.ssh/config or config_file"
            ) from None
    return transport


@functools.cache
def _bounded_packetizer_class() -> type[Packetizer]:
    """Return a reader of packets that believes no length beyond what SSH uses; paramiko's makes room for 4 GiB."""
    from paramiko import SSHException
    from paramiko.packet import Packetizer

    class BoundedPacketizer(Packetizer):
        """Raises SSHException for a packet that is announced as too long."""

        def read_all(self, n: int, check_rekey: bool = False) -> bytes:
            if n > MAX_PACKET_BYTES:
                raise SSHException(f"announced a packet of {n} bytes")
            return super().read_all(n, check_rekey)

    return BoundedPacketizer


def _open_stream(route: SshRoute, endpoint: Endpoint, deadline: Deadline) -> Any:
    """Return a connection to the next machine's port, in the form of a socket."""
    seconds = min(SILENCE_SECONDS, deadline.seconds_left)
    if route.transports:
        there, here = (endpoint.host, endpoint.port), ("127.0.0.1", 0)
        return route.device_transport.open_channel("direct-tcpip", there, here, timeout=seconds)
    if endpoint.proxy_command is None:
        return _connect_socket(endpoint, deadline)
    if endpoint.proxy_passes_socket:
        return _set_tcp_options(receive_socket(endpoint.proxy_command, seconds))
    return ProxyCommandPipes(endpoint.proxy_command, SILENCE_SECONDS)


def _connect_socket(endpoint: Endpoint, deadline: Deadline) -> socket.socket:
    """Connect to the first address of a machine that accepts; raise the last address's OSError."""
    problem: OSError = ConnectionError("no address")
    for family, kind, protocol, _, address in _look_up_addresses(endpoint, deadline):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(min(SILENCE_SECONDS, deadline.seconds_left))
            sock.connect(address)
        except OSError as error:
            sock.close()
            problem = error
            continue
        return _set_tcp_options(sock)
    raise problem


def _set_tcp_options(sock: socket.socket) -> socket.socket:
    """Return a connected socket that does not wait for more to send, and gives a silent machine up."""
    with contextlib.suppress(OSError):  # a ProxyCommand may pass one that is not of TCP
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SILENCE_SECONDS * 1000))
    return sock


def _look_up_addresses(endpoint: Endpoint, deadline: Deadline) -> list[Any]:
    """Call getaddrinfo in a thread, which is abandoned at a timeout: nothing else can end the call."""
    answers: queue.Queue[list[Any] | OSError] = queue.Queue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM))
        except OSError as error:
            answers.put(error)

    threading.Thread(target=look_up, daemon=True).start()
    try:
        answer = answers.get(timeout=min(SILENCE_SECONDS, deadline.seconds_left))
    except queue.Empty:
        raise TimeoutError(f"the name server does not say where {endpoint.host} is") from None
    if isinstance(answer, OSError):
        raise answer
    return answer


def _prefer_known_key_types(transport: Transport, endpoint: Endpoint) -> None:
    """Ask a host, which may have keys of several types, for one of a type that known_hosts has."""
    options = transport.get_security_options()
    known = read_known_keys(endpoint.known_hosts_name, endpoint.known_hosts)
    types = {entry.type for entry in known if not entry.revoked}
    if "ssh-rsa" in types:
        types |= {"rsa-sha2-256", "rsa-sha2-512"}
    options.key_types = sorted(options.key_types, key=lambda key_type: key_type not in types)


def _look_up_shown_host_key(transport: Transport, endpoint: Endpoint) -> HostKey:
    key = transport.get_remote_server_key()
    key_type, text = key.get_name(), key.get_base64()
    name, name_without_port = endpoint.known_hosts_name, endpoint.known_hosts_name_without_port
    found = look_up_host_key(name, key_type, text, endpoint.known_hosts, name_without_port)
    revoking = find_revoking_file(key_type, text, endpoint.revoked_host_keys)
    return found if revoking is None else replace(found, state="revoked", file=revoking, line=None)


def _authenticate(transport: Transport, endpoint: Endpoint, name: str, deadline: Deadline) -> None:
    with _raising_device_errors(endpoint, name, deadline):
        authenticate(transport, endpoint, name, deadline)


@contextlib.contextmanager
def _raising_device_errors(endpoint: Endpoint, name: str, deadline: Deadline) -> Iterator[None]:
    """Raise exceptions of sockets and paramiko as a DeviceError on one line."""
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
        raise DeviceError(
            f"{where} cannot be reached from the jump host ({one_line(error.text)}); check both"
        ) from None
    except IncompatiblePeer as error:
        raise DeviceError(f"{where} speaks another SSH ({one_line(error)}); bring its SSH server up to date") from None
    except peer_errors() as error:
        deadline.check(f"{where}: connecting")
        reason = one_line(getattr(error, "strerror", None) or error) or type(error).__name__
        raise DeviceError(
            f"{where} gives no answer ({reason}); check that it is switched on, connected and not stuck"
        ) from None
