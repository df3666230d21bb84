"""Which host keys are known: looking them up in OpenSSH's files, and recording one that a person has checked."""

from __future__ import annotations

import base64
import binascii
import contextlib
import fnmatch
import hashlib
import hmac
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgenas.errors import DeviceError, UsageError
from edgenas.files import write_bytes

_DEFAULT_PORT = 22
State = Literal["known", "unknown", "changed", "revoked"]


@dataclass(frozen=True)
class HostKey:
    """The key that a machine showed, and what the files say about it.

    ``host`` is as in known_hosts, ``key`` in base64. ``file`` and ``line`` are
    where it stands or is revoked, or where another one stands that it
    contradicts; where none does, ``line`` is None. ``own`` is the file that
    ``record`` puts it in.
    """

    host: str
    type: str
    key: str
    state: State
    file: Path
    line: int | None
    own: Path

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
    """All keys that the files have for a host. What is not there, or is no file, has none.

    Raises DeviceError for a file that cannot be read.
    """
    return [known for file in files for known in _keys_of(host, file)]


def look_up(host: str, kind: str, key: str, files: Sequence[Path]) -> HostKey:
    """Whether a key that a host showed is the one that the files have for it.

    One line that has it is enough, and one that revokes it is stronger. The
    first of ``files`` is the one to record it in.
    """
    known = known_keys(host, files)
    same = [entry for entry in known if entry.key == key]
    revoked = [entry for entry in same if entry.revoked]
    others = [entry for entry in known if not entry.revoked]
    entries = revoked or same or others
    if not entries:
        return HostKey(host, kind, key, "unknown", files[0], None, files[0])
    state: State = "revoked" if revoked else "known" if same else "changed"
    return HostKey(host, kind, key, state, entries[0].file, entries[0].line, files[0])


def check(host_key: HostKey, name: str) -> None:
    """Raises DeviceError, with the remedy, for a key that is not known; ``name`` is what commands call the device."""
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
    if host_key.state == "revoked":
        raise _revoked(host_key)


def record(host_key: HostKey) -> None:
    """Write a key into the user's own known_hosts file, in place of those that this file has for just this host.

    Patterns and other files stay as they are: one line that has the key is
    enough. Raises EdgeNASError when it cannot be written, or is revoked.
    """
    if host_key.state == "revoked":
        raise _revoked(host_key)
    file = host_key.own.resolve()
    if not host_key.own.is_absolute() or (file.exists() and not file.is_file()):
        raise UsageError(
            f"{host_key.own}: cannot hold a key, for it is no file with a full path; set known_hosts in the profile"
        )
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(file, host_key)
    except OSError as error:
        raise DeviceError(
            f"{file}: the host key cannot be recorded ({error.strerror}); make it writable for you,"
            " or set known_hosts in the profile"
        ) from None


def _write(file: Path, host_key: HostKey) -> None:
    before = file.read_bytes().decode(errors="surrogateescape") if file.exists() else ""
    lines = before.split("\n")
    kept = [left for line in lines if (left := _without(host_key.host, line)) is not None]
    if host_key.state == "changed" and kept != lines:
        seen = file.stat()
        write_bytes(file, "\n".join(kept).encode(errors="surrogateescape"))
        file.chmod(stat.S_IMODE(seen.st_mode))
        with contextlib.suppress(PermissionError):
            os.chown(file, seen.st_uid, seen.st_gid)
        before = "\n".join(kept)
    between = "" if not before or before.endswith("\n") else "\n"
    line = f"{between}{host_key.host} {host_key.type} {host_key.key}\n"
    with file.open("ab") as appended:  # in one piece, so that no line of another process is lost
        appended.write(line.encode())


def _without(host: str, line: str) -> str | None:
    """A line without the very name of a host; None when nothing is left. A pattern that covers it stays."""
    names, _, rest = line.partition(" ")
    if line.startswith(("#", "@")) or not _matches(names, host):
        return line
    left = [name for name in names.split(",") if not _is_exact(name) or not _matches(name, host)]
    return f"{','.join(left)} {rest}" if left else None


def _revoked(host_key: HostKey) -> DeviceError:
    return DeviceError(
        f"{host_key.host}: shows {host_key.type} {host_key.fingerprint}, which {host_key.file}, line {host_key.line},"
        " revokes; give the device a new host key (ssh-keygen -A there), or remove that line if it is wrong"
    )


def _keys_of(host: str, file: Path) -> Iterator[KnownKey]:
    try:
        lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    except OSError as error:
        raise DeviceError(
            f"{file}: cannot be read ({error.strerror}); make it readable for you, or set known_hosts in the profile"
        ) from None
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
    found, host = False, host.lower()
    for name in names.lower().split(","):
        if name == host or (not _is_exact(name) and fnmatch.fnmatchcase(host, name.lstrip("!").replace("[", "[[]"))):
            if name.startswith("!"):
                return False
            found = True
    return found


def _is_exact(name: str) -> bool:
    """Whether a name means one host only, and says that it is meant."""
    return not name.startswith("!") and "*" not in name and "?" not in name


def _matches_hashed(names: str, host: str) -> bool:
    try:
        salt, hashed = (base64.b64decode(part) for part in names.split("|")[2:4])
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(hmac.new(salt, host.lower().encode(), hashlib.sha1).digest(), hashed)
