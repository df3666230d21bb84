"""Faults on the way to a device and on it, each against a real server."""

from __future__ import annotations

import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from edgenas.devices import Deadline, DeviceProfile, connect_device, link
from edgenas.devices.ssh.testing import Sshd, write_key_pair
from edgenas.errors import DeviceError

SLEEPER = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
OpenSsh = Callable[..., str]
Mounted = Callable[[str], AbstractContextManager[DeviceProfile]]


@contextmanager
def refused(message: str) -> Iterator[None]:
    """A DeviceError on one line that says this, within a minute."""
    started = time.monotonic()
    with pytest.raises(DeviceError, match=message) as caught:
        yield
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 60


# -- the way there -------------------------------------------------------------------


def test_a_refused_connection_names_the_remedy(sshd: Sshd) -> None:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        profile = sshd.profile(sshd.connection_data(port=sock.getsockname()[1]))
        with refused(r"loopback: 127.0.0.1 port \d+ refuses connections; start its SSH server .*or correct the port"):
            connect_device(profile)


def test_an_unknown_machine_is_named(sshd: Sshd) -> None:
    """A name that no name server knows."""
    with refused("no machine is called board.invalid; correct connection.host"):
        connect_device(sshd.profile(sshd.connection_data(host="board.invalid")))


def test_a_port_of_something_else_gives_no_answer(sshd: Sshd) -> None:
    """A program that accepts and hangs up is no SSH server."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepting = threading.Thread(target=lambda: server.accept()[0].close())
        accepting.start()
        with refused("gives no answer"):
            connect_device(sshd.profile(sshd.connection_data(port=server.getsockname()[1])))
        accepting.join()


NAMES = b"\x14" + bytes(16) + (struct.pack(">I", 4) + b"\xff\x1b[2") * 10 + bytes(5)


@pytest.mark.parametrize(
    ("packet", "problem"),
    [
        (struct.pack(">IB", len(NAMES) + 6, 5) + NAMES + bytes(5), "gives no answer .*can't decode"),
        (struct.pack(">I", 2**32 - 12) + bytes(4), "gives no answer .announced a packet of 429496"),
    ],
    ids=["no text", "too long"],
)
def test_packets_that_are_none_give_no_answer(sshd: Sshd, packet: bytes, problem: str) -> None:
    """Names that are no text, and a length of 4 GiB, end in one line: neither in paramiko's exception nor in memory."""

    def answer(server: socket.socket) -> None:
        with server.accept()[0] as asked:
            asked.sendall(b"SSH-2.0-x\r\n" + packet)
            with suppress(ConnectionResetError):
                while asked.recv(4096):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(target=answer, args=(server,))
        answering.start()
        with refused(problem):
            connect_device(sshd.profile(sshd.connection_data(port=server.getsockname()[1])))
        answering.join()


@pytest.mark.slow
def test_a_frozen_server_is_given_up(sshd: Sshd, ssh_profile: DeviceProfile) -> None:
    """A server that accepts and then says nothing is given up after ten seconds."""
    sshd.freeze()
    with refused("gives no answer .*; check that it is switched on, connected and not stuck"):
        connect_device(ssh_profile)


# -- host keys -----------------------------------------------------------------------


@pytest.fixture
def stranger(sshd: Sshd, tmp_path: Path) -> Path:
    """A public key that is not the server's."""
    write_key_pair(tmp_path / "stranger")
    return tmp_path / "stranger.pub"


def test_an_unknown_host_key_names_the_remedy(sshd: Sshd, tmp_path: Path, openssh: OpenSsh) -> None:
    """A machine that was never trusted is refused with its fingerprint, as ssh-keygen shows it."""
    known = tmp_path / "known"
    shown = re.escape(openssh("ssh-keygen", "-lf", sshd.folder / "host_key.pub").split()[1])
    with refused(rf"not known \(\[127.0.0.1\]:{sshd.port} shows ssh-ed25519 {shown}, not found in {known}.*trust loop"):
        connect_device(sshd.profile(sshd.connection_data(known_hosts=str(known))))
    assert not known.exists()


def test_a_changed_host_key_names_the_line(sshd: Sshd, stranger: Path, tmp_path: Path) -> None:
    """A machine that shows another key than it did is refused with the line that says so."""
    known = tmp_path / "known"
    kind, key, _ = stranger.read_text().split()
    known.write_text(f"# mine\nother {kind} {key}\n[127.0.0.1]:{sshd.port} {kind} {key}\n")
    with refused(f"host key has CHANGED .*another stands in {known}, line 3.*edgenas device trust loopback"):
        connect_device(sshd.profile(sshd.connection_data(known_hosts=str(known))))


# -- the login -----------------------------------------------------------------------


def test_a_wrong_key_names_what_was_tried(sshd: Sshd, stranger: Path) -> None:
    """A key that the device does not have."""
    key = stranger.with_suffix("")
    with refused(rf"refuses the login \(tried {key}\).*ssh-copy-id -p {sshd.port} {sshd.user}@127.0.0.1"):
        connect_device(sshd.profile(sshd.connection_data(identity_file=str(key))))


def test_an_unknown_user_is_named(sshd: Sshd) -> None:
    """A user that the device does not have looks like a wrong key."""
    with refused("nobody-here@127.0.0.1 refuses the login .*check the user"):
        connect_device(sshd.profile(sshd.connection_data(user="nobody-here")))


def test_a_missing_key_file_is_named(sshd: Sshd, tmp_path: Path) -> None:
    """An identity_file that is not there is refused before anything is tried."""
    with refused("absent: identity_file is not there"):
        connect_device(sshd.profile(sshd.connection_data(identity_file=str(tmp_path / "absent"))))


def test_a_file_that_is_no_key_is_named(sshd: Sshd, tmp_path: Path) -> None:
    """An identity_file with something else in it."""
    (tmp_path / "key").write_text("hello\n")
    with refused("refuses the login .*key cannot be read"):
        connect_device(sshd.profile(sshd.connection_data(identity_file=str(tmp_path / "key"))))


@pytest.fixture
def encrypted(sshd: Sshd, tmp_path: Path) -> Iterator[Path]:
    """A key with a passphrase that the server accepts."""
    write_key_pair(tmp_path / "encrypted", "open sesame")
    accepted = sshd.folder / "client_key.pub"
    before = accepted.read_text()
    accepted.write_text(before + (tmp_path / "encrypted.pub").read_text())
    yield tmp_path / "encrypted"
    accepted.write_text(before)


def test_an_encrypted_key_names_the_remedy(sshd: Sshd, encrypted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encrypted key whose passphrase nobody gives."""
    monkeypatch.delenv("EDGENAS_SSH_PASSPHRASE", raising=False)
    with refused(f"{encrypted} is encrypted: set EDGENAS_SSH_PASSPHRASE, or add it to the agent with ssh-add"):
        connect_device(sshd.profile(sshd.connection_data(identity_file=str(encrypted))))


def test_a_passphrase_is_taken_from_the_environment(
    sshd: Sshd, encrypted: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """EDGENAS_SSH_PASSPHRASE opens the key; a wrong one is an error; neither shows in a message or a log."""
    profile = sshd.profile(sshd.connection_data(identity_file=str(encrypted)))
    monkeypatch.setenv("EDGENAS_SSH_PASSPHRASE", "open barley")
    with pytest.raises(DeviceError, match=r"refuses the login .*cannot be read") as caught:
        connect_device(profile)
    assert "barley" not in str(caught.value) + caplog.text
    monkeypatch.setenv("EDGENAS_SSH_PASSPHRASE", "open sesame")
    with connect_device(profile) as device:
        assert device.run(["true"], deadline=Deadline(30)).exit_status == 0
    assert "sesame" not in caplog.text


def test_an_agents_key_is_used(sshd: Sshd, encrypted: Path, ssh_agent: Path, tmp_path: Path, openssh: OpenSsh) -> None:
    """A key of the agent needs neither a file nor a passphrase."""
    plain = tmp_path / "plain"
    plain.write_bytes(encrypted.read_bytes())
    plain.chmod(0o600)
    openssh("ssh-keygen", "-q", "-p", "-P", "open sesame", "-N", "", "-f", plain)
    openssh("ssh-add", "-q", plain)
    config = tmp_path / "config"
    config.write_text("IdentityFile none\n")
    with connect_device(sshd.profile(sshd.connection_data(identity_file=None, config_file=str(config)))) as device:
        assert device.run(["true"], deadline=Deadline(30)).exit_status == 0


def test_an_agents_key_saves_the_passphrase(
    sshd: Sshd, encrypted: Path, ssh_agent: Path, tmp_path: Path, openssh: OpenSsh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encrypted identity_file whose key the agent has is not opened; its public half alone names it too."""
    monkeypatch.delenv("EDGENAS_SSH_PASSPHRASE", raising=False)
    plain, config = tmp_path / "plain", tmp_path / "config"
    plain.write_bytes(encrypted.read_bytes())
    plain.chmod(0o600)
    openssh("ssh-keygen", "-q", "-p", "-P", "open sesame", "-N", "", "-f", plain)
    write_key_pair(tmp_path / "stranger")
    openssh("ssh-add", "-q", tmp_path / "stranger")
    openssh("ssh-add", "-q", plain)
    config.write_text("IdentitiesOnly yes\n")
    connect_device(sshd.profile(sshd.connection_data(identity_file=str(encrypted), config_file=str(config)))).close()
    config.write_text(f"IdentitiesOnly yes\nIdentityFile {encrypted}.pub\n")
    connect_device(sshd.profile(sshd.connection_data(identity_file=None, config_file=str(config)))).close()


@pytest.fixture
def stuck_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An agent that takes requests and never answers, which is not waited for long."""
    monkeypatch.setattr("edgenas.devices.ssh.agent._AGENT_SECONDS", 0.5)
    monkeypatch.delenv("EDGENAS_SSH_PASSPHRASE", raising=False)
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "stuck.sock"))
        agent.listen()
        yield tmp_path / "stuck.sock"


def test_a_stuck_agent_is_passed_over(sshd: Sshd, stuck_agent: Path, encrypted: Path, tmp_path: Path) -> None:
    """The keys of files are offered all the same; where none of them helps the agent is named."""
    config = tmp_path / "config"
    config.write_text(f"IdentityFile none\nIdentityAgent {stuck_agent}\n")
    connect_device(sshd.profile(sshd.connection_data(config_file=str(config)))).close()
    with refused(f"the agent at {stuck_agent}: does not answer .timed out.; {encrypted} is encrypted"):
        connect_device(sshd.profile(sshd.connection_data(config_file=str(config), identity_file=str(encrypted))))


def test_an_agent_that_does_not_sign_is_named(
    sshd: Sshd, ssh_agent: Path, tmp_path: Path, openssh: OpenSsh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that shows its keys and is then stuck, as one that waits for a person is, ends in time."""
    openssh("ssh-add", "-q", sshd.folder / "client_key")
    monkeypatch.setattr("edgenas.devices.ssh.agent._AGENT_SECONDS", 2.0)
    config, front, done = tmp_path / "config", tmp_path / "front.sock", threading.Event()
    config.write_text(f"IdentityFile none\nIdentityAgent {front}\n")

    def answer_once() -> None:
        with server.accept()[0] as asked, socket.socket(socket.AF_UNIX) as agent:
            agent.connect(str(ssh_agent))
            agent.sendall(asked.recv(5))
            asked.sendall(agent.recv(1 << 16))
            done.wait(60)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(front))
        server.listen()
        answering = threading.Thread(target=answer_once)
        answering.start()
        try:
            with refused("tried the agent's key; with it: does not answer .timed out"):
                connect_device(sshd.profile(sshd.connection_data(identity_file=None, config_file=str(config))))
        finally:
            done.set()
            answering.join()


def test_a_name_server_that_is_silent_is_given_up(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking up a name has an end."""
    monkeypatch.setattr("edgenas.devices.ssh.connection.SILENCE_SECONDS", 0.5)
    silent = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *of, **named: silent.wait(60) and [])
    try:
        with refused("the name server does not say where 127.0.0.1 is"):
            connect_device(sshd.profile())
    finally:
        silent.set()


def test_a_passphrase_is_asked_for_on_a_terminal_once(
    sshd: Sshd, encrypted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal the user is asked, once in a process."""
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return "open sesame"

    monkeypatch.delenv("EDGENAS_SSH_PASSPHRASE", raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", answer)
    for _ in range(2):
        connect_device(sshd.profile(sshd.connection_data(identity_file=str(encrypted)))).close()
    assert asked == [f"passphrase of {encrypted}: "]


def test_no_passphrase_is_asked_for_a_key_that_the_device_does_not_know(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is asked first whether a key would do, so that an encrypted one is not opened in vain."""
    write_key_pair(tmp_path / "other", "open sesame")
    monkeypatch.setattr("getpass.getpass", lambda prompt: pytest.fail(prompt))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    with refused(rf"refuses the login \(tried {tmp_path}/other\); check the user"):
        connect_device(sshd.profile(sshd.connection_data(identity_file=str(tmp_path / "other"))))


def test_a_key_that_others_may_read_is_named(sshd: Sshd, tmp_path: Path) -> None:
    """As ssh does, a private key that others may read is ignored, which the message says with the remedy."""
    key = tmp_path / "key"
    key.write_bytes((sshd.folder / "client_key").read_bytes())
    key.chmod(0o644)
    with refused(f"{key} is open to others, so it is ignored, as by ssh: chmod 600 {key}"):
        connect_device(sshd.profile(sshd.connection_data(identity_file=str(key))))


def test_a_device_that_hangs_up_after_some_keys_says_so(sshd: Sshd, tmp_path: Path) -> None:
    """A server lets a user try a few keys only, six by default; the message names those that it was offered."""
    for number in range(7):
        write_key_pair(tmp_path / f"key{number}")
    (tmp_path / "config").write_text("".join(f"IdentityFile {tmp_path}/key{number}\n" for number in range(7)))
    connection = sshd.connection_data(identity_file=None, config_file=str(tmp_path / "config"))
    with refused(f"tried .*{tmp_path}/key5; the device hung up after these; name the right one with identity_file"):
        connect_device(sshd.profile(connection))


# -- in mid-run ----------------------------------------------------------------------


def test_a_connection_killed_in_mid_run_is_noticed(
    sshd: Sshd, ssh_profile: DeviceProfile, is_gone: Callable[[int], bool], tmp_path: Path
) -> None:
    """Lines that came before are there, the command ends, its folder goes, and the next connection works."""
    lines: list[str] = []

    def cut(line: str) -> None:
        lines.append(line)
        sshd.kill_sessions()

    with connect_device(ssh_profile) as device:
        with refused("loopback: the connection was lost"):
            device.run([device.python, "-c", SLEEPER], deadline=Deadline(600), on_line=cut)
        with refused("connection was lost"):
            device.run(["true"], deadline=Deadline(30))
    assert is_gone(int(lines[0]))
    with connect_device(ssh_profile) as device:
        assert device.run(["true"], deadline=Deadline(30)).exit_status == 0
    assert list((tmp_path / "board").iterdir()) == []


@pytest.mark.slow
def test_a_device_frozen_in_mid_run_is_noticed(
    sshd: Sshd, ssh_profile: DeviceProfile, is_gone: Callable[[int], bool]
) -> None:
    """A device that hangs is given up after ten seconds, and works again when it does."""
    lines: list[str] = []

    def freeze(line: str) -> None:
        lines.append(line)
        sshd.freeze()

    with connect_device(ssh_profile) as device, refused("gave no sign of life for 10 s"):
        device.run([device.python, "-c", SLEEPER], deadline=Deadline(600), on_line=freeze)
    sshd.thaw()
    assert is_gone(int(lines[0]))
    with connect_device(ssh_profile) as device:
        assert device.run(["true"], deadline=Deadline(30)).exit_status == 0


@pytest.mark.slow
def test_a_device_frozen_while_a_file_is_sent_is_noticed(
    sshd: Sshd, ssh_profile: DeviceProfile, tmp_path: Path
) -> None:
    """More than the link's window cannot be sent to a device that hangs."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(20_000_000))
    with connect_device(ssh_profile) as device:
        device.run(["true"], deadline=Deadline(30))
        sshd.freeze()
        with refused("gave no sign of life for 10 s"):
            device.push(source, "name")


@pytest.mark.slow
def test_a_quiet_command_is_no_frozen_device(ssh_profile: DeviceProfile) -> None:
    """A device that says nothing for over ten seconds but that it lives is not given up."""
    with connect_device(ssh_profile) as device:
        assert device.run(["sleep", "13"], deadline=Deadline(60)).exit_status == 0


# -- on the device -------------------------------------------------------------------


def test_a_missing_python_is_named(sshd: Sshd, tmp_path: Path) -> None:
    """Without Python nothing can be run, which says what to install; the shell's facts are there all the same."""
    source = tmp_path / "source"
    source.write_bytes(b"x")
    with connect_device(sshd.profile(python="/no/python3")) as device:
        for attempt in (lambda: device.run(["true"], deadline=Deadline(30)), lambda: device.push(source, "name")):
            with refused(
                r"loopback: /no/python3 cannot be run there \(.*\); install Python 3.8 .*or correct python in"
            ):
                attempt()
        facts = device.facts()
    assert facts["kernel"] == os.uname().release
    assert facts["python"] is None


def test_a_python_that_ends_before_it_read_the_program_is_named(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program longer than SSH's window is still being sent when the shell ends; the missing Python is named."""
    monkeypatch.setattr(link, "_build_worker_program", lambda *_: bytes(16 << 20))
    with connect_device(sshd.profile(python="/no/python3")) as device, refused("/no/python3 cannot be run there"):
        device.run(["true"], deadline=Deadline(30))


def test_a_full_disk_is_named(mounted: Mounted, tmp_path: Path) -> None:
    """A file that does not fit leaves nothing behind, and a smaller one still fits."""
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(os.urandom(3_000_000))
    small.write_bytes(b"x" * 100_000)
    with mounted("size=1m") as profile, connect_device(profile) as device:
        with refused(f"{large} cannot be stored there \\(No space left on device\\); free space there or set work_dir"):
            device.push(large, "large")
        device.push(small, "small")
        code = "import os; print(sorted(os.listdir('.')), os.path.getsize('small'))"
        assert device.run([device.python, "-c", code], deadline=Deadline(30)).stdout == "['.lock', 'small'] 100000\n"


def test_kept_files_make_room(mounted: Mounted, tmp_path: Path) -> None:
    """Files that are kept for the next time do not fill a disk: the least used ones go."""
    with mounted("size=1m") as profile:
        for number in range(5):
            model = tmp_path / f"model{number}"
            model.write_bytes(os.urandom(400_000))
            with connect_device(profile) as device:
                device.push(model, "model")


def test_a_read_only_disk_is_named(mounted: Mounted, tmp_path: Path) -> None:
    """A work_dir that cannot be written is refused with the remedy."""
    (tmp_path / "source").write_bytes(b"x")
    with (
        mounted("ro") as profile,
        connect_device(profile) as device,
        refused(rf"no work folder can be made in {profile.work_dir}\S* there \(Read-only file system\).*set work_dir"),
    ):
        device.push(tmp_path / "source", "name")


def test_a_work_dir_that_is_no_folder_is_named(sshd: Sshd, tmp_path: Path) -> None:
    """A work_dir that is a file is refused with the remedy."""
    (tmp_path / "file").write_text("")
    with (
        connect_device(sshd.profile(work_dir=str(tmp_path / "file"))) as device,
        refused("no work folder .* set work_dir"),
    ):
        device.run(["true"], deadline=Deadline(30))


# -- jump hosts ----------------------------------------------------------------------


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Sshd]:
    """Another server, to go by way of."""
    with Sshd(tmp_path / "gate") as server:
        yield server


def profile_behind(gate: Sshd, sshd: Sshd, folder: Path, *, known: bool = True) -> DeviceProfile:
    """The profile of a server that is reached by way of another, whose name and key a configuration has."""
    files = [sshd.folder / "known_hosts", *([gate.folder / "known_hosts"] if known else [])]
    (folder / "known").write_text("".join(file.read_text() for file in files))
    (folder / "config").write_text(
        f"Host gate\n HostName 127.0.0.1\n Port {gate.port}\n User {gate.user}\n"
        f" IdentityFile {gate.folder}/client_key\n IdentityAgent none\n"
        f"Host board\n HostName 127.0.0.1\n Port {sshd.port}\n User {sshd.user}\n"
        f" IdentityFile {sshd.folder}/client_key\n IdentityAgent none\n"
    )
    known_hosts, config = str(folder / "known"), str(folder / "config")
    connection = {"kind": "ssh", "host": "board", "jump": "gate", "known_hosts": known_hosts, "config_file": config}
    return sshd.profile(connection, work_dir=str(folder / "board"))


def test_a_device_behind_a_jump_host_is_reached(gate: Sshd, sshd: Sshd, tmp_path: Path) -> None:
    """Names, ports, users and keys of both come from ssh's configuration."""
    with connect_device(profile_behind(gate, sshd, tmp_path)) as device:
        assert device.run(["echo", "hello"], deadline=Deadline(30)).stdout == "hello\n"
        assert any("sshd" in Path(f"/proc/{pid}/comm").read_text() for pid in gate.session_pids())


def test_a_jump_host_must_be_known_too(gate: Sshd, sshd: Sshd, tmp_path: Path) -> None:
    """The key of each machine on the way is checked."""
    with refused(rf"host key is not known \(\[127.0.0.1\]:{gate.port} shows"):
        connect_device(profile_behind(gate, sshd, tmp_path, known=False))


def test_a_jump_host_that_cannot_go_on_says_so(gate: Sshd, sshd: Sshd, tmp_path: Path) -> None:
    """The device behind the jump host does not answer."""
    profile = profile_behind(gate, sshd, tmp_path)
    sshd.stop()
    try:
        with refused(rf"127.0.0.1 port {sshd.port} cannot be reached from the jump host"):
            connect_device(profile)
    finally:
        sshd.start()


def test_a_jump_host_lost_in_mid_run_is_noticed(
    gate: Sshd, sshd: Sshd, tmp_path: Path, is_gone: Callable[[int], bool]
) -> None:
    """A connection that breaks at the jump host is lost."""
    lines: list[str] = []

    def cut(line: str) -> None:
        lines.append(line)
        gate.kill_sessions()

    with connect_device(profile_behind(gate, sshd, tmp_path)) as device, refused("connection was lost"):
        device.run([device.python, "-c", SLEEPER], deadline=Deadline(600), on_line=cut)
    assert is_gone(int(lines[0]))
