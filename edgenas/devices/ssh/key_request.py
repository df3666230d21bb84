"""Asking a server whether a key would do, as ssh does, and proving it: paramiko can only do the second, unasked.

A server that is asked first gets a signature from no key that it does not
know: no passphrase is asked for in vain, and no agent or card is bothered.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from paramiko import Message
from paramiko.auth_handler import AuthHandler
from paramiko.common import cMSG_USERAUTH_REQUEST
from paramiko.ssh_exception import PartialAuthentication

if TYPE_CHECKING:
    from paramiko import PKey, Transport

_METHOD = "publickey"


def would_accept_key(transport: Transport, user: str, public: bytes) -> bool:
    """Return whether a server would accept a key (RFC 4252, section 7).

    Args:
        transport: The connection, on which another login was tried.
        user: The user there.
        public: The public key or certificate.

    Raises:
        paramiko.SSHException: The connection failed, or the server takes no keys.
    """
    return _KeyRequest(transport).send(user, public) != []


def log_in_with_key(transport: Transport, user: str, public: bytes, key: PKey) -> bool:
    """Log in with a key; return false if the server wants another proof besides it.

    Args:
        transport: The connection, on which another login was tried.
        user: The user there.
        public: The public key or certificate.
        key: The private key, or the agent's.

    Raises:
        paramiko.AuthenticationException: The server refuses the key.
        paramiko.SSHException: The connection failed, or the agent did not sign.
    """
    return _KeyRequest(transport).send(user, public, key) == []


class _KeyRequest(AuthHandler):
    """One request about a key. It takes the place of the handler of earlier requests."""

    def send(self, user: str, public: bytes, key: PKey | None = None) -> list[str]:
        """Send the request, signed if there is a private key; return the further methods of which one is needed."""
        transport: Any = self.transport
        this: Any = self
        algorithm = this._finalize_pubkey_algorithm(Message(public).get_text())
        request = Message()
        request.add_byte(cMSG_USERAUTH_REQUEST)
        for text in (user, "ssh-connection", _METHOD):
            request.add_string(text)
        request.add_boolean(key is not None)
        request.add_string(algorithm)
        request.add_string(public)
        if key is not None:
            session = Message()
            session.add_string(transport.session_id)
            signature: Any = key.sign_ssh_data(session.asbytes() + request.asbytes(), algorithm)
            request.add_string(signature)
        self.username, self.auth_method, self.auth_event = user, _METHOD, threading.Event()
        transport.auth_handler = self
        transport._send_message(request)
        return self.wait_for_response(self.auth_event)

    def _parse_userauth_info_request(self, message: Message) -> None:
        """Handle the answer that a key would do, whose number paramiko knows for another answer only."""
        self.transport.saved_exception = PartialAuthentication([_METHOD])
        assert self.auth_event is not None
        self.auth_event.set()
