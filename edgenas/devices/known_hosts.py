"""Which host keys are known: looking them up in OpenSSH's files, and recording one that a person has checked."""

from __future__ import annotations

import base64
import binascii
import contextlib
import fnmatch
import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgenas.errors import DeviceError, UsageError
from edgenas.files import write_bytes

_DEFAULT_PORT = 22


@dataclass(frozen=True)
class HostKey:
    """The key that a machine showed, and what the files say about it.

    ``host`` is as in known_hosts, ``key`` in base64. ``file`` and ``line`` are
    where it stands, or where another one stands that it contradicts; where
    neither does, ``file`` is where ``record`` would put it and ``line`` None.
    """

    host: str
    type: str
    key: str
    state: Literal["known", "unknown", "changed"]
    file: Path
    line: int | None

    @property
    def fingerprint(self) -> str:
        """As ``ssh-keygen -l`` shows it: ``SHA256:`` and unpadded base64."""
        return fingerprint(self.key)


@dataclass(frozen=True)
class KnownKey:
    """One line of a known_hosts file that is about a host."""

    type: str
    key: str
    revoked: bool
    file: Path
    line: int


def host_name(host: str, port: int) -> str:
    """How known_hosts names a host: a port other than 22 is shown."""
    return host if port == _DEFAULT_PORT else f"[{host}]:{port}"


def fingerprint(key: str) -> str:
    """The SHA-256 fingerprint of a key in base64, as ``ssh-keygen -l`` shows it."""
    summed = hashlib.sha256(base64.b64decode(key)).digest()
    return "SHA256:" + base64.b64encode(summed).decode().rstrip("=")


def known_keys(host: str, files: Sequence[Path]) -> list[KnownKey]:
    """All keys that the files have for a host. Files that are not there have none."""
    return [known for file in files for known in _keys_of(host, file)]


def judge(host: str, kind: str, key: str, files: Sequence[Path]) -> HostKey:
    """Whether a key that a host showed is the one that the files have for it.

    A revoked key counts as changed.
    """
    known = known_keys(host, files)
    for entry in known:
        if entry.key == key and not entry.revoked:
            revoked = [other for other in known if other.key == key and other.revoked]
            where = revoked[0] if revoked else entry
            return HostKey(host, kind, key, "changed" if revoked else "known", where.file, where.line)
    others = [entry for entry in known if not entry.revoked or entry.key == key]
    if others:
        return HostKey(host, kind, key, "changed", others[0].file, others[0].line)
    return HostKey(host, kind, key, "unknown", files[0], None)


def check(host_key: HostKey, name: str) -> None:
    """Raises DeviceError on one line, with the remedy, for a key that is not known; ``name`` is the profile's."""
    shown = f"{host_key.host} shows {host_key.type} {host_key.fingerprint}"
    trust = f"run edgenas device trust {name}"
    if host_key.state == "unknown":
        raise DeviceError(
            f"{name}: the host key is not known ({shown}, not found in {host_key.file});"
            f" compare it with ssh-keygen -l on the device, then {trust}"
        )
    if host_key.state == "changed":
        raise DeviceError(
            f"{name}: the host key has CHANGED ({shown}, another stands in {host_key.file}, line {host_key.line});"
            f" this may be an attack; if the device was installed anew, {trust}"
        )


def record(host_key: HostKey) -> None:
    """Write a key into its known_hosts file, in place of the ones that it contradicts there. Raises EdgeNASError
    when it cannot be written.
    """
    file = host_key.file.resolve()
    if file.exists() and not file.is_file():
        raise UsageError(f"{host_key.file}: cannot hold a key, for it is no file; set known_hosts in the profile")
    text = file.read_text(errors="surrogateescape") if file.is_file() else ""
    lines = text.splitlines()
    if host_key.state == "changed":
        lines = [kept for line in lines if (kept := _without(host_key.host, line)) is not None]
    lines.append(f"{host_key.host} {host_key.type} {host_key.key}")
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_bytes(file, ("\n".join(lines) + "\n").encode(errors="surrogateescape"))


def _without(host: str, line: str) -> str | None:
    """A line without what it says of a host; None when nothing is left."""
    names, _, rest = line.partition(" ")
    if line.startswith(("#", "@")) or not _matches(names, host):
        return line
    left = [name for name in names.split(",") if not _matches(name, host)]
    return f"{','.join(left)} {rest}" if left else None


def _keys_of(host: str, file: Path) -> Iterator[KnownKey]:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return
    for number, line in enumerate(lines, 1):
        fields = line.split()
        revoked = bool(fields) and fields[0] == "@revoked"
        if revoked:
            fields = fields[1:]
        if len(fields) >= 3 and not fields[0].startswith(("#", "@")) and _matches(fields[0], host):
            yield KnownKey(fields[1], fields[2], revoked, file, number)


def _matches(names: str, host: str) -> bool:
    """Whether the first field of a line means a host (sshd(8): SSH_KNOWN_HOSTS FILE FORMAT)."""
    if names.startswith("|1|"):
        return _matches_hashed(names, host)
    found = False
    for name in names.split(","):
        if fnmatch.fnmatchcase(host.lower(), name.lstrip("!").lower().replace("[", "[[]")):
            if name.startswith("!"):
                return False
            found = True
    return found


def _matches_hashed(names: str, host: str) -> bool:
    try:
        salt, hashed = (base64.b64decode(part) for part in names.split("|")[2:4])
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(hmac.new(salt, host.lower().encode(), hashlib.sha1).digest(), hashed)
