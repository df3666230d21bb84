"""Configurations through ssh itself and through edgenas, against a real server: whom one lets in, the other does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from edgenas.devices import connect_device
from edgenas.devices.ssh.testing import Sshd, write_key_pair
from edgenas.errors import DeviceError

pytestmark = pytest.mark.slow
StartAgent = Callable[[Path], AbstractContextManager[None]]
MOST_TRIES = 3
CONFIG = """
Host board
{lines}
 Port {port}
Host gate
{gate_lines}
 Port {gate_port}
 IdentityFile @/right
Host *
 HostName 127.0.0.1
 User {user}
 IdentityAgent none
 UserKnownHostsFile @/known
 GlobalKnownHostsFile none
"""


class Lab:
    """A board and a gate to it, each an SSH server, with keys, agents and files of host keys in one folder."""

    def __init__(self, folder: Path, start_agent: StartAgent, stack: ExitStack) -> None:
        self.folder = folder
        self._start_agent, self._stack = start_agent, stack
        for name, kind in (("right", "ed25519"), ("right_rsa", "rsa"), ("right_ecdsa", "ecdsa"), ("ca", "ed25519")):
            write_key_pair(folder / name, kind=kind)
        self.board, self.gate = self._start("board"), self._start("gate")
        self._write_keys()
        self._write_known_hosts()
        wrong = [f"wrong{number}" for number in range(1, 5)]
        self._add_agent("agent_of_wrong", *wrong)
        self._add_agent("agent_of_many", *wrong, "right")
        self._add_agent("agent_of_two", *wrong[:2])
        self._add_agent("agent_of_right", "right")
        self._add_agent("agent_of_certified", "apart")
        self._add_agent("agent_of_key_without_certificate", "apart_without")
        self._add_agent("agent_that_asks", "-c", "right")

    def _start(self, name: str) -> Sshd:
        server = Sshd(self.folder / name)
        write_key_pair(server.folder / "host_rsa", kind="rsa")
        allowed = [self.folder / f"{key}.pub" for key in ("right", "right_rsa", "right_ecdsa")]
        (server.folder / "client_key.pub").write_text("".join(path.read_text() for path in allowed))
        more = f"HostKey {server.folder}/host_rsa\nMaxAuthTries {MOST_TRIES}\nTrustedUserCAKeys {self.folder}/ca.pub\n"
        config = server.folder / "sshd_config"
        config.write_text(config.read_text() + more)
        return self._stack.enter_context(server)

    def _write_keys(self) -> None:
        for number in range(1, 5):
            write_key_pair(self.folder / f"wrong{number}")
        for name in ("certified", "apart"):
            write_key_pair(self.folder / name)
            certify: list[str | Path] = ["-s", self.folder / "ca", "-I", name, "-n", self.board.user]
            self._run("ssh-keygen", "-q", *certify, self.folder / f"{name}.pub")
        shutil.copy(self.folder / "apart-cert.pub", self.folder / "certificate")
        self._copy_key("apart", "apart_without")
        shutil.copy(self.folder / "right", self.folder / "open_to_others")
        (self.folder / "open_to_others").chmod(0o640)
        # The same keys, which only the agent can use: without a passphrase, and without the private half.
        self._copy_key("right", "locked")
        self._run("ssh-keygen", "-q", "-p", "-P", "", "-N", "open sesame", "-f", self.folder / "locked")
        shutil.copy(self.folder / "right.pub", self.folder / "public_only.pub")
        user, port = self.board.user, self.board.port
        for name in (f"127.0.0.1-{port}-{user}-board-alias", "of my lab"):
            self._copy_key("right", name)

    def _copy_key(self, name: str, copy: str) -> None:
        (self.folder / copy).write_bytes((self.folder / name).read_bytes())
        (self.folder / copy).chmod(0o600)

    def _write_known_hosts(self) -> None:
        def line(server: Sshd, key: Path, name: str = "") -> str:
            return f"{name or f'[127.0.0.1]:{server.port}'} {' '.join(key.read_text().split()[:2])}\n"

        def write(name: str, *lines: str) -> Path:
            (self.folder / name).write_text("".join(lines))
            return self.folder / name

        board, key, wrong = self.board, self.board.folder / "host_key.pub", self.folder / "wrong1.pub"
        gate = line(self.gate, self.gate.folder / "host_key.pub")
        write("known", line(board, key), gate)
        write("known_rsa", line(board, board.folder / "host_rsa.pub"))
        write("known_without_port", line(board, key, "127.0.0.1"))
        write("known_pattern", line(board, key, "127.0.*,!127.0.0.9"))
        write("known_of_port_differs", line(board, wrong), line(board, key, "127.0.0.1"))
        write(
            "known_of_port_is_of_another_type",
            line(board, self.folder / "right_ecdsa.pub"),
            line(board, key, "127.0.0.1"),
        )
        write("known_without_port_differs", line(board, wrong, "127.0.0.1"))
        write("known_without_port_revoked", "@revoked " + line(board, key, "127.0.0.1"), line(board, key, "127.0.0.1"))
        write("known_revoked", "@revoked " + line(board, key), line(board, key))
        write("revoked", "# gone\n", key.read_text())
        self._run("ssh-keygen", "-q", "-k", "-f", self.folder / "revoked_list", key)
        write("known_alias", line(board, key, "alias"))
        write("known_alias_of_port", line(board, key, f"[alias]:{board.port}"))
        write("known_gate", line(board, key, "gate"))
        write("known of my lab", line(board, key))
        write("unknown")
        for name in ("known", "known_without_port"):
            hashed = write(f"{name}_hashed", (self.folder / name).read_text())
            self._run("ssh-keygen", "-q", "-H", "-f", hashed)
            hashed.with_name(f"{hashed.name}.old").unlink()

    def _add_agent(self, name: str, *keys: str) -> None:
        path = self.folder / name
        self._stack.enter_context(self._start_agent(path))
        self._run("ssh-add", "-q", *(key if key.startswith("-") else self.folder / key for key in keys), agent=path)

    def _run(self, name: str, *arguments: str | Path, agent: Path | None = None) -> None:
        command = [shutil.which(name) or name, *map(str, arguments)]
        environment = {**os.environ, "SSH_AUTH_SOCK": str(agent or "")}
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL, env=environment)

    def write_config(self, lines: str, gate_lines: str = "") -> Path:
        """Write an ssh configuration with these lines for the board and the gate; @ is the folder."""
        text = CONFIG.format(
            lines=lines, port=self.board.port, gate_lines=gate_lines, gate_port=self.gate.port, user=self.board.user
        )
        config = self.folder / "config"
        config.write_text(text.replace("@/", f"{self.folder}/"))
        return config


@pytest.fixture(scope="module")
def lab(loopback: Sshd, start_agent: StartAgent, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The servers, keys and agents; ``loopback`` says what happens without sshd."""
    if shutil.which("ssh") is None:
        pytest.skip("no ssh client is installed here")
    with ExitStack() as stack:
        yield Lab(tmp_path_factory.mktemp("lab"), start_agent, stack)


@pytest.fixture(autouse=True)
def environment(lab: Lab, relay: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that configurations name, and a passphrase that nobody gives."""
    monkeypatch.setenv("LAB", str(lab.folder))
    monkeypatch.setenv("LAB_NAME", "of my lab")
    monkeypatch.setenv("LAB_AGENT", str(lab.folder / "agent_of_right"))
    monkeypatch.setenv("LAB_RELAY", f"{sys.executable} {relay}")
    monkeypatch.setenv("SSH_AUTH_SOCK", str(lab.folder / "agent_of_right"))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "never")
    monkeypatch.delenv("EDGENAS_SSH_PASSPHRASE", raising=False)


def check_both(lab: Lab, expected: bool, lines: str, gate_lines: str = "") -> None:
    """Let ssh and edgenas log in by a configuration, and compare who gets in."""
    config = lab.write_config(lines, gate_lines)
    options = ["-F", str(config), "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
    command = [shutil.which("ssh") or "ssh", *options, "board", "exit 0"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as ssh:
        said = ""
        try:
            connect_device(lab.board.profile({"kind": "ssh", "host": "board", "config_file": str(config)})).close()
        except DeviceError as error:
            said = str(error)
            assert "\n" not in said
        ssh_said = ssh.communicate()[1]
    assert (ssh.returncode == 0, said == "") == (expected, expected), f"{lines}\nssh: {ssh_said}\nedgenas: {said}"


NO_FILE = " IdentityFile none\n"
KEYS = {
    "a key": (True, " IdentityFile @/right"),
    "an RSA key": (True, " IdentityFile @/right_rsa"),
    "an ECDSA key": (True, " IdentityFile @/right_ecdsa"),
    "a wrong key": (False, " IdentityFile @/wrong1"),
    "no key": (False, NO_FILE),
    "a missing file": (False, " IdentityFile @/missing"),
    "the last try": (True, " IdentityFile @/wrong1\n IdentityFile @/wrong2\n IdentityFile @/right"),
    "one try too many": (
        False,
        " IdentityFile @/wrong1\n IdentityFile @/wrong2\n IdentityFile @/wrong3\n IdentityFile @/right",
    ),
    "a missing file is no try": (
        True,
        " IdentityFile @/wrong1\n IdentityFile @/missing\n IdentityFile @/wrong2\n IdentityFile @/right",
    ),
    "a file that others may read": (False, " IdentityFile @/open_to_others"),
    "a locked key": (False, " IdentityFile @/locked"),
    "a locked key before another": (True, " IdentityFile @/locked\n IdentityFile @/right_rsa"),
}
AGENTS = {
    "its key": (True, NO_FILE + " IdentityAgent @/agent_of_right"),
    "too many keys": (False, NO_FILE + " IdentityAgent @/agent_of_many"),
    "a configured key that it holds goes first": (True, " IdentityAgent @/agent_of_many\n IdentityFile @/right"),
    "by its public half": (True, " IdentityAgent @/agent_of_many\n IdentityFile @/public_only.pub"),
    "by a locked file": (True, " IdentityAgent @/agent_of_many\n IdentityFile @/locked"),
    "its keys go before a file": (False, " IdentityAgent @/agent_of_wrong\n IdentityFile @/right"),
    "few keys leave a try for a file": (True, " IdentityAgent @/agent_of_two\n IdentityFile @/right"),
    "IdentitiesOnly": (True, " IdentityAgent @/agent_of_wrong\n IdentityFile @/right\n IdentitiesOnly yes"),
    "IdentitiesOnly with a key that it holds": (
        True,
        " IdentityAgent @/agent_of_many\n IdentityFile @/locked\n IdentitiesOnly yes",
    ),
    "IdentitiesOnly without a file": (False, NO_FILE + " IdentityAgent @/agent_of_right\n IdentitiesOnly yes"),
    "none": (False, NO_FILE + " IdentityAgent none"),
    "of SSH_AUTH_SOCK": (True, NO_FILE + " IdentityAgent SSH_AUTH_SOCK"),
    "of a variable": (True, NO_FILE + " IdentityAgent $LAB_AGENT"),
    "of a variable in braces": (True, NO_FILE + " IdentityAgent ${LAB}/agent_of_right"),
    "of an unset variable": (False, NO_FILE + " IdentityAgent $NO_SUCH_VARIABLE"),
    "not running": (True, " IdentityAgent @/missing\n IdentityFile @/right"),
    "refuses to sign": (False, NO_FILE + " IdentityAgent @/agent_that_asks"),
    "refuses to sign before another key": (True, " IdentityAgent @/agent_that_asks\n IdentityFile @/right_rsa"),
    "refuses for a key that the board does not know": (
        True,
        " IdentityAgent @/agent_that_asks\n IdentityFile @/right_ecdsa",
    ),
}
CERTIFICATES = {
    "beside the key": (True, " IdentityFile @/certified"),
    "elsewhere": (True, " IdentityFile @/apart_without\n CertificateFile @/certificate"),
    "takes the place of those beside keys": (False, " IdentityFile @/certified\n CertificateFile @/missing"),
    "for the agent's key": (
        True,
        NO_FILE + " IdentityAgent @/agent_of_key_without_certificate\n CertificateFile @/certificate",
    ),
    "of the agent": (True, NO_FILE + " IdentityAgent @/agent_of_certified"),
    "without its key": (False, " IdentityFile @/wrong1\n CertificateFile @/certificate"),
    "beside a plain key that is accepted": (True, " IdentityFile @/right\n CertificateFile @/certificate"),
}
PATHS = {
    "tokens": (True, " HostKeyAlias alias\n IdentityFile @/%h-%p-%r-%n-%k\n UserKnownHostsFile @/known_%k"),
    "a variable with blanks": (True, ' IdentityFile "@/${LAB_NAME}"\n UserKnownHostsFile "${LAB}/known ${LAB_NAME}"'),
    "a variable for a folder": (True, " IdentityFile ${LAB}/right\n UserKnownHostsFile ${LAB}/known"),
    "an unset variable": (False, " IdentityFile ${NO_SUCH_VARIABLE}/key\n IdentityFile @/right"),
    "an unset variable for host keys": (False, " IdentityFile @/right\n UserKnownHostsFile ${NO_SUCH_VARIABLE}/known"),
    "a variable for a certificate": (True, " IdentityFile @/apart_without\n CertificateFile ${LAB}/certificate"),
    "an unknown token": (False, " IdentityFile @/right%y"),
}
RIGHT = " IdentityFile @/right\n"
HOST_KEYS = {
    "with the port": (True, "known"),
    "with the port, hashed": (True, "known_hashed"),
    "of a type that is not the first": (True, "known_rsa"),
    "without the port": (True, "known_without_port"),
    "without the port, hashed": (True, "known_without_port_hashed"),
    "a pattern without the port": (True, "known_pattern"),
    "a second file": (True, "unknown @/known"),
    "another with the port, ours without": (False, "known_of_port_differs"),
    "one of another type with the port, ours without": (False, "known_of_port_is_of_another_type"),
    "another without the port": (False, "known_without_port_differs"),
    "revoked": (False, "known_revoked"),
    "revoked without the port": (False, "known_without_port_revoked"),
    "unknown": (False, "unknown"),
    "a missing file": (False, "missing"),
    "in a list of revoked keys": (False, "known\n RevokedHostKeys @/revoked"),
    "in a revocation list": (False, "known\n RevokedHostKeys @/revoked_list"),
    "in no revocation list": (True, "known_rsa\n RevokedHostKeys @/revoked_list"),
    "a missing list of revoked keys": (False, "known\n RevokedHostKeys @/missing"),
    "no list of revoked keys": (True, "known\n RevokedHostKeys none"),
    "by the alias": (True, "known_alias\n HostKeyAlias alias"),
    "by the address, not the alias": (False, "known\n HostKeyAlias alias"),
    "by the alias with a port": (False, "known_alias_of_port\n HostKeyAlias alias"),
}
RELAYING = " ProxyCommand $LAB_RELAY"
PROXIES = {
    "a command": (True, f"{RIGHT}{RELAYING} %h %p"),
    "a command with all tokens": (
        True,
        RIGHT
        + """ ProxyCommand sh -c 'test "$0" = "board alias $(id -un) %%" && exec "$@"' "%n %k %r %%" """
        + "$LAB_RELAY %h %p\n HostKeyAlias alias\n UserKnownHostsFile @/known_alias",
    ),
    "a command with a quoted part and a pipe": (True, f'{RIGHT}{RELAYING} "%h" %p | cat'),
    "a command that talks": (
        True,
        f"{RIGHT} ProxyCommand sh -c 'echo hello >&2; exec \"$@\"' x $LAB_RELAY %h %p",
    ),
    "a command for an alias": (
        True,
        f"{RIGHT}{RELAYING} %h %p\n HostKeyAlias alias\n UserKnownHostsFile @/known_alias",
    ),
    "a command and an unknown host key": (False, f"{RIGHT}{RELAYING} %h %p\n UserKnownHostsFile @/unknown"),
    "a command that fails": (False, f"{RIGHT} ProxyCommand exit 3"),
    "a command that is not there": (False, f"{RIGHT} ProxyCommand /no/such/command"),
    "a command that goes elsewhere": (False, f"{RIGHT}{RELAYING} %h 1"),
    "a command with an unknown token": (False, f"{RIGHT}{RELAYING} %h %p %d"),
    "none": (True, f"{RIGHT} ProxyCommand none"),
    "a command that passes a socket": (True, f"{RIGHT}{RELAYING} %h %p pass\n ProxyUseFdpass yes"),
    "a command that passes no socket": (False, f"{RIGHT} ProxyCommand exit 0\n ProxyUseFdpass yes"),
    "a jump host": (True, f"{RIGHT} ProxyJump gate"),
    "a jump host with tokens": (True, f"{RIGHT} ProxyJump %r@%k\n HostKeyAlias gate\n UserKnownHostsFile @/known_gate"),
    "a jump host goes before a command": (True, f"{RIGHT} ProxyJump gate\n ProxyCommand exit 3"),
    "an unknown jump host": (False, f"{RIGHT} ProxyJump nobody@gate"),
    "a board that the jump host does not reach": (False, f"{RIGHT} ProxyJump gate\n Port 1"),
}


@pytest.mark.parametrize(("expected", "lines"), KEYS.values(), ids=KEYS)
def test_keys(lab: Lab, expected: bool, lines: str) -> None:
    """Key files are offered in order, until the server has enough; what cannot be used does not matter."""
    check_both(lab, expected, lines)


@pytest.mark.parametrize(("expected", "lines"), AGENTS.values(), ids=AGENTS)
def test_agents(lab: Lab, expected: bool, lines: str) -> None:
    """An agent's keys go before files, first those that are configured, and only these with IdentitiesOnly."""
    check_both(lab, expected, lines)


@pytest.mark.parametrize(("expected", "lines"), CERTIFICATES.values(), ids=CERTIFICATES)
def test_certificates(lab: Lab, expected: bool, lines: str) -> None:
    """A user's certificate goes with a key of a file or of the agent."""
    check_both(lab, expected, lines)


@pytest.mark.parametrize(("expected", "lines"), PATHS.values(), ids=PATHS)
def test_paths(lab: Lab, expected: bool, lines: str) -> None:
    """Tokens and variables are replaced wherever ssh replaces them."""
    check_both(lab, expected, lines)


@pytest.mark.parametrize(("expected", "files"), HOST_KEYS.values(), ids=HOST_KEYS)
def test_host_keys(lab: Lab, expected: bool, files: str) -> None:
    """A host key is known by address and port, by address alone, by patterns, hashes and aliases."""
    check_both(lab, expected, f"{RIGHT} UserKnownHostsFile @/{files}")


@pytest.mark.parametrize(("expected", "lines"), PROXIES.values(), ids=PROXIES)
def test_proxies(lab: Lab, expected: bool, lines: str) -> None:
    """A board may be behind a command of the user's, or behind a jump host."""
    check_both(lab, expected, lines)


@pytest.mark.parametrize(
    ("expected", "gate_lines"),
    [
        (True, f"{RELAYING} %h %p"),
        (False, " ProxyCommand exit 3"),
        (False, " UserKnownHostsFile @/unknown"),
        (False, " User nobody-here"),
    ],
    ids=["a command", "a command that fails", "an unknown host key", "an unknown user"],
)
def test_jump_hosts(lab: Lab, expected: bool, gate_lines: str) -> None:
    """A jump host has a configuration of its own."""
    check_both(lab, expected, f"{RIGHT} ProxyJump gate", gate_lines)
