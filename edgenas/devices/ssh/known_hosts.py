"""OpenSSH's known_hosts files: looking a host key up, and recording one that a person has confirmed."""

from __future__ import annotations

import base64
import binascii
import contextlib
import fnmatch
import hashlib
import hmac
import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgenas.errors import DeviceError, UsageError
from edgenas.files import write_bytes
from edgenas.shell import format_command

DEFAULT_PORT = 22
_REVOCATION_LIST = b"SSHKRL\n\0"  # its first bytes
State = Literal["known", "unknown", "changed", "revoked"]


@dataclass(frozen=True)
class HostKey:
    """The key that a machine showed, and what known_hosts files say about it.

    Attributes:
        host: The machine's name in known_hosts.
        type: The key's type: ``ssh-ed25519``.
        key: The key in base64.
        state: ``changed`` when the files have only other keys for the host.
        file: The file with the line that decides ``state``; the user's own file without such a line.
        line: The number of that line, None without one.
        own_file: The file that ``record_host_key`` writes to.
    """

    host: str
    type: str
    key: str
    state: State
    file: Path
    line: int | None
    own_file: Path

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint of the key, as ``ssh-keygen -l`` prints it."""
        return fingerprint(self.key)


@dataclass(frozen=True)
class KnownKey:
    """One line of a known_hosts file about a host."""

    type: str
    key: str
    revoked: bool
    file: Path
    line: int


def known_hosts_name(host: str, port: int) -> str:
    """Return the name of a host in known_hosts, which includes any port but 22."""
    return host if port == DEFAULT_PORT else f"[{host}]:{port}"


def fingerprint(key: str) -> str:
    """Return the SHA-256 fingerprint of a key in base64, as ``ssh-keygen -l`` prints it."""
    hashed = hashlib.sha256(base64.b64decode(key)).digest()
    return "SHA256:" + base64.b64encode(hashed).decode().rstrip("=")


def read_known_keys(host: str, files: Sequence[Path]) -> list[KnownKey]:
    """Return all keys of a host in known_hosts files. A file that does not exist has none.

    Raises:
        DeviceError: A file cannot be read.
    """
    keys: list[KnownKey] = []
    for file in files:
        try:
            lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
        except OSError as error:
            raise DeviceError(
                f"{file}: cannot be read ({error.strerror}); make it readable for you,"
                " or set known_hosts in the profile"
            ) from None
        for number, line in enumerate(lines, 1):
            fields = line.split()
            revoked = fields[:1] == ["@revoked"]
            names, *key = (fields[1:] if revoked else fields) or [""]
            if len(key) >= 2 and not names.startswith(("#", "@")) and _names_match_host(names, host):
                keys.append(KnownKey(key[0], key[1], revoked, file, number))
    return keys


def look_up_host_key(
    host: str, key_type: str, key: str, files: Sequence[Path], host_without_port: str | None = None
) -> HostKey:
    """Look up a key that a host showed. One line with the key makes it known; a line that revokes it is stronger.

    Args:
        host: The machine's name in known_hosts.
        key_type: The key's type.
        key: The key in base64.
        files: The known_hosts files, the user's own first.
        host_without_port: Its name without a port. As to ssh, a line with it makes a key known where no line has
            a key for ``host``.

    Raises:
        DeviceError: A file cannot be read.
    """
    known = read_known_keys(host, files)
    if host_without_port and all(entry.revoked and entry.key != key for entry in known):
        known = [entry for entry in read_known_keys(host_without_port, files) if entry.key == key]
    same = [entry for entry in known if entry.key == key]
    revoked = [entry for entry in same if entry.revoked]
    others = [entry for entry in known if not entry.revoked]
    deciding = revoked or same or others
    if not deciding:
        return HostKey(host, key_type, key, "unknown", files[0], None, files[0])
    state: State = "revoked" if revoked else "known" if same else "changed"
    return HostKey(host, key_type, key, state, deciding[0].file, deciding[0].line, files[0])


def find_revoking_file(key_type: str, key: str, files: Sequence[Path]) -> Path | None:
    """Return the first file of revoked host keys, ssh's RevokedHostKeys, that has a key; None without one.

    Args:
        key_type: The key's type.
        key: The key in base64.
        files: Lists of public keys, or key revocation lists as ``ssh-keygen -k`` writes them.

    Raises:
        DeviceError: A file cannot be read, so that any key may be revoked.
    """
    for file in files:
        try:
            if _revokes(file, key_type, key):
                return file
        except OSError as error:
            raise DeviceError(
                f"{file}: cannot be read ({error.strerror}), so no host key can be trusted;"
                " correct RevokedHostKeys in ~/.ssh/config"
            ) from None
    return None


def _revokes(file: Path, key_type: str, key: str) -> bool:
    data = file.read_bytes()
    if not data.startswith(_REVOCATION_LIST):
        return any(line.split()[:2] == [key_type, key] for line in data.decode(errors="replace").splitlines())
    command = [shutil.which("ssh-keygen") or "ssh-keygen", "-Q", "-f", str(file), "/dev/stdin"]
    shown = f"{key_type} {key}\n".encode()
    return subprocess.run(command, input=shown, capture_output=True, check=False).returncode != 0  # noqa: S603 - a list


def check_host_key(host_key: HostKey, name: str) -> None:
    """Raise DeviceError, with the remedy, for a key that is not known.

    Args:
        host_key: The key that the machine showed.
        name: The device's name as an argument of commands.
    """
    shown = f"{host_key.host} shows {host_key.type} {host_key.fingerprint}"
    trust = f"run {format_command('device', 'trust')} {name}"
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
        raise _revoked_error(host_key)


def record_host_key(host_key: HostKey) -> None:
    """Write a key into the user's own known_hosts file, in place of that file's other keys for exactly this host.

    Lines with patterns and other files stay as they are, because one line that
    has the key makes it known.

    Raises:
        DeviceError: The file cannot be written, or the key is revoked.
        UsageError: The user's own file is no file with an absolute path.
    """
    if host_key.state == "revoked":
        raise _revoked_error(host_key)
    file = host_key.own_file.resolve()
    if not host_key.own_file.is_absolute() or (file.exists() and not file.is_file()):
        raise UsageError(
            f"{host_key.own_file}: cannot hold a key, for it is no file with a full path;"
            " set known_hosts in the profile"
        )
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace_key_in_file(file, host_key)
    except OSError as error:
        raise DeviceError(
            f"{file}: the host key cannot be recorded ({error.strerror}); make it writable for you,"
            " or set known_hosts in the profile"
        ) from None


def _replace_key_in_file(file: Path, host_key: HostKey) -> None:
    text = file.read_bytes().decode(errors="surrogateescape") if file.exists() else ""
    lines = text.split("\n")
    kept = [rest for line in lines if (rest := _line_without_host(host_key.host, line)) is not None]
    if host_key.state == "changed" and kept != lines:
        before = file.stat()
        text = "\n".join(kept)
        write_bytes(file, text.encode(errors="surrogateescape"))
        file.chmod(stat.S_IMODE(before.st_mode))
        with contextlib.suppress(PermissionError):
            os.chown(file, before.st_uid, before.st_gid)
    line_feed = "" if not text or text.endswith("\n") else "\n"
    line = f"{line_feed}{host_key.host} {host_key.type} {host_key.key}\n"
    with file.open("ab") as appended:  # in one piece, so that no line of another process is lost
        appended.write(line.encode())


def _line_without_host(host: str, line: str) -> str | None:
    """Return a line without the exact name of a host, None when no name is left. Patterns stay."""
    names, _, rest = line.partition(" ")
    if line.startswith(("#", "@")) or not _names_match_host(names, host):
        return line
    others = [name for name in names.split(",") if not _is_exact_name(name) or not _names_match_host(name, host)]
    return f"{','.join(others)} {rest}" if others else None


def _revoked_error(host_key: HostKey) -> DeviceError:
    place = f"{host_key.file}, line {host_key.line}" if host_key.line else str(host_key.file)
    return DeviceError(
        f"{host_key.host}: shows {host_key.type} {host_key.fingerprint}, which {place}, revokes;"
        " give the device a new host key (ssh-keygen -A there), or remove that line if it is wrong"
    )


def _names_match_host(names: str, host: str) -> bool:
    """Return whether the first field of a line includes a host (sshd(8): SSH_KNOWN_HOSTS FILE FORMAT)."""
    if names.startswith("|1|"):
        return _hashed_name_matches_host(names, host)
    is_included, host = False, host.lower()
    for name in names.lower().split(","):
        if name == host or (
            not _is_exact_name(name) and fnmatch.fnmatchcase(host, name.lstrip("!").replace("[", "[[]"))
        ):
            if name.startswith("!"):
                return False
            is_included = True
    return is_included


def _is_exact_name(name: str) -> bool:
    """Return whether a name includes one host only: no pattern and no negation."""
    return not name.startswith("!") and "*" not in name and "?" not in name


def _hashed_name_matches_host(names: str, host: str) -> bool:
    try:
        salt, hashed = (base64.b64decode(part) for part in names.split("|")[2:4])
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(hmac.new(salt, host.lower().encode(), hashlib.sha1).digest(), hashed)
