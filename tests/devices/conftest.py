"""Fixtures of the tests of devices."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

Gone = Callable[[int], bool]
OpenSsh = Callable[..., str]
StartAgent = Callable[[Path], AbstractContextManager[None]]


@pytest.fixture
def is_gone() -> Gone:
    """Returns whether a process ends within half a minute; a zombie that nobody reaps has ended."""

    def wait(pid: int) -> bool:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
            except (FileNotFoundError, ProcessLookupError):
                return True
            if state == "Z":
                return True
            time.sleep(0.02)
        return False

    return wait


@pytest.fixture
def openssh() -> OpenSsh:
    """Runs one of OpenSSH's programs and returns its output."""

    def run(name: str, *arguments: str | Path) -> str:
        command = [shutil.which(name) or name, *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout

    return run


@pytest.fixture(scope="session")
def start_agent() -> StartAgent:
    """Runs an ssh agent without keys at a socket's path, while the context lasts."""

    @contextmanager
    def run(path: Path) -> Iterator[None]:
        command = [shutil.which("ssh-agent") or "ssh-agent", "-D", "-a", str(path)]
        agent = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            while not is_listening(path):
                assert agent.poll() is None
                time.sleep(0.01)
            yield
        finally:
            agent.kill()
            agent.wait()

    return run


def is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


@pytest.fixture
def ssh_agent(start_agent: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new agent without keys, named by SSH_AUTH_SOCK; gives its socket."""
    path = tmp_path / "agent.sock"
    with start_agent(path):
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield path
