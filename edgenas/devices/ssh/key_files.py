"""Files of keys: public keys and certificates, and private keys, which may have a passphrase.

EDGENAS_SSH_PASSPHRASE opens an encrypted key where there is no terminal to ask at.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import getpass
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paramiko import PKey

PASSPHRASE = "EDGENAS_SSH_PASSPHRASE"  # noqa: S105 - the name of a variable
CERTIFICATE = "-cert-v01@openssh.com"  # the end of a certificate's type, after that of its key
_PRIVATE_KEY = "BEGIN OPENSSH PRIVATE KEY"
_MAGIC = b"openssh-key-v1\0"


def read_public_key(path: Path) -> bytes:
    """Return the public key or certificate in a file, beside it in a .pub file, or in a private key, in this order.

    Empty where there is none. No passphrase is needed.
    """
    from paramiko import Message

    for file in (path, path.with_name(f"{path.name}.pub")):
        with contextlib.suppress(OSError, ValueError):
            kind, text, *_ = file.read_text().split(maxsplit=2)
            public = base64.b64decode(text)
            if Message(public).get_text() == kind:
                return public
    with contextlib.suppress(OSError, ValueError):
        _, begin, text, *_ = path.read_text().split("-----")
        message = Message(base64.b64decode(text))
        if begin == _PRIVATE_KEY and message.get_bytes(len(_MAGIC)) == _MAGIC:
            for _cipher_and_derivation in range(3):
                message.get_string()
            message.get_int()
            return bytes(message.get_string())
    return b""


def public_key_of(public: bytes) -> bytes:
    """Return the public key in a certificate, and any other public key as it is."""
    from paramiko import Message, PKey, SSHException
    from paramiko.pkey import UnknownKeyType

    kind = Message(public).get_text()
    if not kind.endswith(CERTIFICATE):
        return public
    try:
        return bytes(PKey.from_type_string(kind.removesuffix(CERTIFICATE), public).asbytes())
    except (SSHException, UnknownKeyType, ValueError):
        return public


def try_read_private_key(path: Path, problems: list[str]) -> PKey | None:
    """Return the key of a file; None, with a note in ``problems``, when it cannot be read or others may read it."""
    import paramiko

    try:
        status = path.stat()
        key = _read_key_asking_passphrase(path, status.st_mtime_ns)
        if status.st_uid != os.getuid() or not status.st_mode & 0o077:
            return key
        problems.append(f"{path} is open to others, so it is ignored, as by ssh: chmod 600 {shlex.quote(str(path))}")
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
            return key_type.from_private_key_file(str(path), passphrase)
        except paramiko.PasswordRequiredException:
            raise
        except (ValueError, IndexError, paramiko.SSHException) as error:
            problem = error
    raise problem
