"""Host keys in files as OpenSSH writes them, and against a real server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgenas.devices import Deadline, connect_device
from edgenas.devices.ssh.config import SshConnection
from edgenas.devices.ssh.connection import fetch_host_key
from edgenas.devices.ssh.known_hosts import (
    HostKey,
    check_host_key,
    fingerprint,
    known_hosts_name,
    look_up_host_key,
    read_known_keys,
    record_host_key,
)
from edgenas.devices.ssh.testing import Sshd, write_key_pair
from edgenas.errors import DeviceError, UsageError

OpenSsh = Callable[..., str]
KEY, OTHER = "AAAAC3NzaC1lZDI1NTE5AAAAIG1pbmU=", "AAAAC3NzaC1lZDI1NTE5AAAAIG90aGU="


def connection(sshd: Sshd, known: Path) -> SshConnection:
    return SshConnection(**sshd.connection_data(known_hosts=str(known)))


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("names", "host", "matches"),
    [
        ("board", "board", True),
        ("board", "Board", True),
        ("board", "board2", False),
        ("other,board", "board", True),
        ("board", "[board]:2222", False),
        ("[board]:2222", "[board]:2222", True),
        ("[board]:2222", "b:2222", False),
        ("*.lab", "board.lab", True),
        ("board?", "board7", True),
        ("*.lab,!board.lab", "board.lab", False),
        ("!board", "board", False),
        ("|1|nonsense", "board", False),
    ],
)
def test_names_match_as_ssh_matches_them(tmp_path: Path, names: str, host: str, matches: bool) -> None:
    """Lists, patterns, negation and ports are those of sshd(8)."""
    file = write(tmp_path / "known", f"{names} ssh-ed25519 {KEY}")
    assert bool(read_known_keys(host, [file])) is matches


def test_a_hashed_name_matches(tmp_path: Path, openssh: OpenSsh) -> None:
    """Names that ssh-keygen has hashed are found."""
    write_key_pair(tmp_path / "key")
    key = (tmp_path / "key.pub").read_text().split()[1]
    file = write(tmp_path / "known", f"[board]:2222 ssh-ed25519 {key}")
    openssh("ssh-keygen", "-q", "-H", "-f", file)
    assert "board" not in file.read_text()
    assert [found.key for found in read_known_keys("[board]:2222", [file])] == [key]
    assert read_known_keys("board", [file]) == []


def test_a_fingerprint_is_as_ssh_keygen_shows_it(tmp_path: Path, openssh: OpenSsh) -> None:
    """SHA-256 in unpadded base64."""
    write_key_pair(tmp_path / "key")
    shown = openssh("ssh-keygen", "-lf", tmp_path / "key.pub").split()[1]
    assert fingerprint((tmp_path / "key.pub").read_text().split()[1]) == shown


def test_a_port_is_named_unless_it_is_22() -> None:
    """Port 22 is left out."""
    assert (known_hosts_name("board", 22), known_hosts_name("board", 2222)) == ("board", "[board]:2222")


@pytest.mark.parametrize(
    ("lines", "state", "line"),
    [
        ([], "unknown", None),
        ([f"other ssh-ed25519 {KEY}"], "unknown", None),
        ([f"board ssh-ed25519 {KEY}"], "known", 1),
        ([f"board ssh-ed25519 {OTHER}", f"board ssh-ed25519 {KEY}"], "known", 2),
        (["# note", "", f"board ssh-ed25519 {OTHER}"], "changed", 3),
        ([f"board ssh-rsa {OTHER}"], "changed", 1),
        ([f"board ssh-ed25519 {KEY}", f"@revoked board ssh-ed25519 {KEY}"], "revoked", 2),
        ([f"@revoked board ssh-ed25519 {KEY}"], "revoked", 1),
        ([f"@revoked board ssh-ed25519 {OTHER}"], "unknown", None),
        ([f"@cert-authority board ssh-ed25519 {OTHER}"], "unknown", None),
        (["board", "board ssh-ed25519", "\ufffd"], "unknown", None),
    ],
)
def test_a_key_is_known_or_why_not(tmp_path: Path, lines: list[str], state: str, line: int | None) -> None:
    """A key is known where one line has it; changed where lines have only others; revoked where one revokes it."""
    file = write(tmp_path / "known", *lines)
    found = look_up_host_key("board", "ssh-ed25519", KEY, [file, tmp_path / "absent"])
    assert (found.state, found.line, found.file, found.own_file) == (state, line, file, file)


@pytest.mark.parametrize(
    ("lines", "state", "line"),
    [
        ([f"board ssh-ed25519 {KEY}"], "known", 1),
        ([f"|1|nonsense ssh-ed25519 {KEY}", f"b* ssh-ed25519 {KEY}"], "known", 2),
        ([f"board ssh-ed25519 {OTHER}"], "unknown", None),
        ([f"board ssh-ed25519 {KEY}", f"@revoked board ssh-ed25519 {KEY}"], "revoked", 2),
        ([f"board ssh-ed25519 {KEY}", f"[board]:22022 ssh-ed25519 {OTHER}"], "changed", 2),
        ([f"board ssh-ed25519 {KEY}", f"@revoked [board]:22022 ssh-ed25519 {KEY}"], "revoked", 2),
        ([f"board ssh-ed25519 {KEY}", f"@revoked [board]:22022 ssh-ed25519 {OTHER}"], "known", 1),
    ],
)
def test_a_line_without_the_port_counts_where_no_other_does(
    tmp_path: Path, lines: list[str], state: str, line: int | None
) -> None:
    """A key is known by address alone, unless a line for the port decides; another key there is another machine's."""
    file = write(tmp_path / "known", *lines)
    found = look_up_host_key("[board]:22022", "ssh-ed25519", KEY, [file], "board")
    assert (found.host, found.state, found.line) == ("[board]:22022", state, line)


def test_a_key_on_a_revocation_list_is_refused(sshd: Sshd, tmp_path: Path, openssh: OpenSsh) -> None:
    """A known key that RevokedHostKeys lists, as text or as ssh-keygen writes it, is refused with the file."""
    revoked, config = tmp_path / "revoked", tmp_path / "config"
    config.write_text(f"RevokedHostKeys {revoked}\n")
    profile = sshd.profile(sshd.connection_data(config_file=str(config)))
    key = sshd.folder / "host_key.pub"
    revoked.write_bytes(key.read_bytes())
    with pytest.raises(DeviceError, match=f"which {revoked}, revokes; give the device a new host key"):
        connect_device(profile)
    openssh("ssh-keygen", "-q", "-k", "-f", revoked, key)
    with pytest.raises(DeviceError, match=f"which {revoked}, revokes"):
        connect_device(profile)
    revoked.unlink()
    with pytest.raises(DeviceError, match=f"{revoked}: cannot be read .No such file .*; correct RevokedHostKeys"):
        connect_device(profile)


def test_a_revoked_key_is_never_recorded(tmp_path: Path) -> None:
    """Neither connecting nor recording goes past a line that revokes a key; both name it."""
    file = write(tmp_path / "known", f"@revoked board ssh-ed25519 {KEY}")
    found = look_up_host_key("board", "ssh-ed25519", KEY, [file])
    for refuse in (record_host_key, lambda key: check_host_key(key, "board")):
        with pytest.raises(DeviceError, match=f"{file}, line 1, revokes; give the device a new host key"):
            refuse(found)
    assert file.read_text() == f"@revoked board ssh-ed25519 {KEY}\n"


def test_recording_keeps_the_rest_of_the_file(tmp_path: Path) -> None:
    """A changed key takes the place of the old ones; lines about others, and other names of a line, stay."""
    file = write(
        tmp_path / "known", "# note", f"other,board ssh-ed25519 {OTHER}", f"board ssh-rsa {OTHER}", "*.lab ssh-rsa x"
    )
    record_host_key(look_up_host_key("board", "ssh-ed25519", KEY, [file]))
    expected = ["# note", f"other ssh-ed25519 {OTHER}", "*.lab ssh-rsa x", f"board ssh-ed25519 {KEY}"]
    assert file.read_text().splitlines() == expected
    assert look_up_host_key("board", "ssh-ed25519", KEY, [file]).state == "known"


def test_recording_keeps_patterns(tmp_path: Path) -> None:
    """A line that covers other hosts as well stays as it is; the new one beside it is enough."""
    old = [f"*.lab ssh-ed25519 {OTHER}", f"board.lab,pi?.lab,!x ssh-ed25519 {OTHER}"]
    file = write(tmp_path / "known", *old)
    record_host_key(look_up_host_key("board.lab", "ssh-ed25519", KEY, [file]))
    new = f"board.lab ssh-ed25519 {KEY}"
    assert file.read_text().splitlines() == [old[0], f"pi?.lab,!x ssh-ed25519 {OTHER}", new]
    assert look_up_host_key("board.lab", "ssh-ed25519", KEY, [file]).state == "known"


def test_recording_leaves_other_files_alone(tmp_path: Path) -> None:
    """A key that contradicts a file of the whole machine is recorded in the user's own, and counts."""
    own, machine = tmp_path / "own", write(tmp_path / "machine", f"board ssh-ed25519 {OTHER}")
    found = look_up_host_key("board", "ssh-ed25519", KEY, [own, machine])
    assert (found.state, found.file, found.own_file) == ("changed", machine, own)
    record_host_key(found)
    assert machine.read_text() == f"board ssh-ed25519 {OTHER}\n"
    assert own.read_text() == f"board ssh-ed25519 {KEY}\n"
    assert look_up_host_key("board", "ssh-ed25519", KEY, [own, machine]).state == "known"


@pytest.mark.parametrize("names", ["board", "other"], ids=["replaced", "added"])
def test_recording_keeps_the_mode(tmp_path: Path, names: str) -> None:
    """A file that only its owner may read stays one."""
    file = write(tmp_path / "known", f"{names} ssh-ed25519 {OTHER}")
    file.chmod(0o600)
    record_host_key(look_up_host_key("board", "ssh-ed25519", KEY, [file]))
    assert file.stat().st_mode & 0o777 == 0o600
    assert KEY in file.read_text()


def test_recording_begins_a_new_line(tmp_path: Path) -> None:
    """A last line without a line feed is not run into."""
    file = tmp_path / "known"
    file.write_text(f"other ssh-ed25519 {OTHER}")
    record_host_key(look_up_host_key("board", "ssh-ed25519", KEY, [file]))
    assert file.read_text() == f"other ssh-ed25519 {OTHER}\nboard ssh-ed25519 {KEY}\n"


def test_two_who_record_at_once_lose_nothing(tmp_path: Path) -> None:
    """Recording a new key adds to what the file has by then, not to what it had before."""
    file = write(tmp_path / "known")
    one, two = (look_up_host_key(host, "ssh-ed25519", KEY, [file]) for host in ("one", "two"))
    record_host_key(one)
    record_host_key(two)
    assert file.read_text() == f"one ssh-ed25519 {KEY}\ntwo ssh-ed25519 {KEY}\n"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A known_hosts that is there but not for us is an error, for looking up and for recording."""
    file = write(tmp_path / "known", f"board ssh-ed25519 {KEY}")

    def refuse(*of: object, **named: object) -> bytes:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(DeviceError, match=r"known: cannot be read \(Permission denied\); make it readable"):
        read_known_keys("board", [file])
    with pytest.raises(DeviceError, match=r"known: the host key cannot be recorded \(Permission denied\)"):
        record_host_key(HostKey("board", "ssh-ed25519", KEY, "unknown", file, None, file))


def test_a_long_file_is_read_at_once(tmp_path: Path) -> None:
    """A hundred thousand hosts take no minute; names without * or ? are only compared."""
    file = write(tmp_path / "known", *(f"host{number} ssh-ed25519 {OTHER}" for number in range(100_000)))
    started = time.process_time()
    assert read_known_keys("board", [file]) == []
    assert time.process_time() - started < 5


def test_recording_makes_the_file(tmp_path: Path) -> None:
    """A first key makes the folder, closed to others, and the file."""
    file = tmp_path / "ssh" / "known_hosts"
    record_host_key(HostKey("board", "ssh-ed25519", KEY, "unknown", file, None, file))
    assert file.read_text() == f"board ssh-ed25519 {KEY}\n"
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_recording_in_no_file_is_refused(tmp_path: Path) -> None:
    """A known_hosts that is a device, as /dev/null is, stays one; a relative one means nothing to ssh."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("relative")):
        with pytest.raises(UsageError, match="set known_hosts in the profile"):
            record_host_key(HostKey("board", "ssh-ed25519", KEY, "unknown", path, None, path))


def test_recording_follows_a_link(tmp_path: Path) -> None:
    """A known_hosts that is a link to another file stays one."""
    target, link = write(tmp_path / "target"), tmp_path / "link"
    link.symlink_to(target)
    record_host_key(HostKey("board", "ssh-ed25519", KEY, "unknown", link, None, link))
    assert link.is_symlink()
    assert KEY in target.read_text()


def test_a_recorded_key_lets_us_in(sshd: Sshd, tmp_path: Path) -> None:
    """The server's key is unknown at first; after it is recorded it is known, and connecting works."""
    known = tmp_path / "known"
    shown = fetch_host_key(connection(sshd, known), Deadline(30))
    assert (shown.state, shown.host, shown.file) == ("unknown", f"[127.0.0.1]:{sshd.port}", known)
    assert (sshd.folder / "host_key.pub").read_text().split()[:2] == [shown.type, shown.key]
    record_host_key(shown)
    assert fetch_host_key(connection(sshd, known), Deadline(30)).state == "known"
    connect_device(sshd.profile(sshd.connection_data(known_hosts=str(known)))).close()


def test_a_key_of_a_known_kind_is_asked_for(sshd: Sshd, tmp_path: Path) -> None:
    """Of a host with keys of several kinds the one that is recorded is shown, though another would be preferred."""
    write_key_pair(tmp_path / "host_ecdsa", kind="ecdsa")
    with Sshd(tmp_path / "two") as server:
        server.stop()
        config = server.folder / "sshd_config"
        config.write_text(config.read_text() + f"HostKey {tmp_path}/host_ecdsa\n")
        server.write_known_host_key(tmp_path / "host_ecdsa.pub")
        server.start()
        connect_device(server.profile()).close()


def test_jump_hosts_are_asked_first(sshd: Sshd, tmp_path: Path) -> None:
    """Keys on the way are shown one after another, each when those before it are known."""
    with Sshd(tmp_path / "gate") as gate:
        config = write(
            tmp_path / "config",
            *("Host *", f" IdentityFile {gate.folder}/client_key", f" IdentityFile {sshd.folder}/client_key"),
            " IdentityAgent none",
        )
        jump = f"{gate.user}@127.0.0.1:{gate.port}"
        behind = replace(connection(sshd, tmp_path / "known"), jump=jump, config_file=str(config))
        shown = []
        while (key := fetch_host_key(behind, Deadline(30))).state != "known":
            shown.append(key.host)
            record_host_key(key)
        assert shown == [f"[127.0.0.1]:{gate.port}", f"[127.0.0.1]:{sshd.port}"]


def test_fetching_from_nobody_says_so(sshd: Sshd, tmp_path: Path) -> None:
    """A machine that cannot be reached shows no key."""
    with pytest.raises(DeviceError, match=r"no machine is called board\.invalid"):
        fetch_host_key(
            SshConnection(kind="ssh", host="board.invalid", config_file=str(sshd.folder / "ssh_config")), Deadline(30)
        )
