"""Logging in over SSH with keys, those of files and of an ssh agent, in the order of ssh. Passwords are never used."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgenas.devices.contract import Deadline
from edgenas.devices.ssh.agent import open_agent
from edgenas.devices.ssh.config import Endpoint
from edgenas.devices.ssh.key_files import public_key_of, read_public_key, try_read_private_key
from edgenas.errors import DeviceError

if TYPE_CHECKING:
    from paramiko import PKey, Transport

_ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class _Offer:
    """A public key or certificate to offer to the server.

    ``label`` names it in messages. ``public`` is empty where only the private
    key can tell it. ``private_file`` may hold the private key.
    """

    label: str
    public: bytes
    private_file: Path | None = None


def authenticate(transport: Transport, endpoint: Endpoint, name: str, deadline: Deadline) -> None:
    """Offer keys until the server accepts one: the profile's, then those that ssh offers, in its order.

    Args:
        transport: The connection, whose host key was checked.
        endpoint: The machine that it leads to.
        name: The device's name in messages.
        deadline: The time for all of it, without the time to type a passphrase.

    Raises:
        DeviceError: No key was accepted; the message lists what was tried.
        paramiko.SSHException: The connection failed.
    """
    problems: list[str] = []
    login = _Login(transport, endpoint.user, problems, deadline)
    if login.needs_no_key():
        return
    with open_agent(endpoint.agent, problems, deadline) as agent_keys:
        offers = _order_offers(endpoint, agent_keys)
        for offer in offers:
            if login.try_offer(offer, offers, agent_keys):
                return
            if not transport.is_active():
                problems.append("the device hung up after these; name the right one with identity_file")
                break
    user, port = f"{endpoint.user}@{endpoint.host}", endpoint.port
    attempts = "; ".join([f"tried {', '.join(login.tried) or 'no key, there is none'}", *problems])
    raise DeviceError(
        f"{name}: {user} refuses the login ({attempts});"
        f" check the user, and put a key there: ssh-copy-id -p {port} {user}"
    )


def _order_offers(endpoint: Endpoint, agent_keys: Mapping[bytes, PKey]) -> list[_Offer]:
    """Return what to offer, in order: the profile's key, then as ssh does (pubkey_prepare in its sshconnect2.c).

    Those are certificates, the configuration's keys that the agent holds, the
    agent's others, the configuration's others. A server hangs up after a few
    tries, so the order decides who gets in.

    Raises:
        DeviceError: The profile's key is not there.
    """
    own = endpoint.identity_file
    named = [] if own is None else _offers_of_file(own, True)
    if own is not None and not own.is_file() and named[0].public not in agent_keys:
        raise DeviceError(f"{own}: identity_file is not there; correct the profile")
    certificates = [_Offer(str(path), read_public_key(path)) for path in endpoint.certificate_files]
    listed = [offer for path in endpoint.identity_files for offer in _offers_of_file(path, not certificates)]
    held = [offer for public in agent_keys for offer in listed if offer.public == public]
    others = [] if endpoint.identities_only else [_Offer("the agent's key", public) for public in agent_keys]
    return [*named, *certificates, *held, *others, *listed]


def _offers_of_file(path: Path, with_certificate: bool) -> list[_Offer]:
    """Return the key of a private or public key's file, and the certificate beside it."""
    offers = [_Offer(str(path), read_public_key(path), path)]
    certificate = path.with_name(f"{path.name}-cert.pub")
    if with_certificate and certificate.is_file():
        offers.append(_Offer(str(certificate), read_public_key(certificate), path))
    return offers


class _Login:
    """The attempts to log in over one connection.

    Args:
        transport: The connection.
        user: The user there.
        problems: Gets notes on what failed.
        deadline: The time that the server's answers may take.

    Attributes:
        tried: The labels of what was offered.
    """

    def __init__(self, transport: Transport, user: str, problems: list[str], deadline: Deadline) -> None:
        self._transport, self._user, self._problems = transport, user, problems
        self._seconds_left = deadline.seconds_left
        self._offered: set[bytes] = set()
        self.tried: list[str] = []

    def needs_no_key(self) -> bool:
        """Ask the server for its methods; return whether it has let the user in without one."""
        import paramiko

        try:
            with self._waiting_for_answer():
                self._transport.auth_none(self._user)
        except paramiko.BadAuthenticationType:
            return False
        return True

    def try_offer(self, offer: _Offer, offers: Sequence[_Offer], agent_keys: Mapping[bytes, PKey]) -> bool:
        """Try to log in with an offer, and return whether it did; what was offered before is not offered again.

        The private key is looked for when the server would accept it: in the
        agent, or in the files of all offers.
        """
        key, public = None, offer.public
        if not public:
            key = _load_private_key(offer, [], agent_keys, self._problems)
            public = b"" if key is None else key.asbytes()
        if not public or public in self._offered:
            return False
        self._offered.add(public)
        self.tried.append(offer.label)
        if not self._succeeds(public, None):
            return False
        key = key or _load_private_key(offer, offers, agent_keys, self._problems)
        return key is not None and self._succeeds(public, key)

    def _succeeds(self, public: bytes, key: PKey | None) -> bool:
        """Return whether the server would accept a public key, or with a private key whether it lets us in."""
        import paramiko

        from edgenas.devices.ssh.key_request import log_in_with_key, would_accept_key

        try:
            with self._waiting_for_answer():
                if key is None:
                    return would_accept_key(self._transport, self._user, public)
                if log_in_with_key(self._transport, self._user, public, key):
                    return True
            self._problems.append("the device wants a second proof besides the key")
        except paramiko.BadAuthenticationType as error:
            self._problems.append(f"the device takes {', '.join(error.allowed_types)} only")
        except paramiko.AuthenticationException as error:
            if "timeout" in str(error):
                raise
        except paramiko.SSHException as error:
            if key is None or not self._transport.is_active():
                raise
            self._problems.append(f"with it: {error}")  # the agent did not sign
        return False

    @contextlib.contextmanager
    def _waiting_for_answer(self) -> Iterator[None]:
        """Let the server take ten seconds, or what it has left; the time that a person types does not count."""
        self._transport.auth_timeout = min(_ANSWER_SECONDS, self._seconds_left)
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds_left -= time.monotonic() - started


def _load_private_key(
    offer: _Offer, offers: Sequence[_Offer], agent_keys: Mapping[bytes, PKey], problems: list[str]
) -> PKey | None:
    """Return the key that signs for an offer, from the agent if it has it, so that nobody is asked for a passphrase."""
    plain = public_key_of(offer.public)
    key = agent_keys.get(offer.public) or agent_keys.get(plain)
    files = [offer.private_file, *(other.private_file for other in offers if other.public == plain)]
    path = next((path for path in files if path is not None and path.is_file()), None)
    return key or (None if path is None else try_read_private_key(path, problems))
