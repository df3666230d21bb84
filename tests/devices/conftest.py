"""Fixtures of the tests of devices."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Gone = Callable[[int], bool]
OpenSsh = Callable[..., str]


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


@pytest.fixture
def ssh_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new agent without keys, named by SSH_AUTH_SOCK; gives its socket."""
    socket = tmp_path / "agent.sock"
    command = [shutil.which("ssh-agent") or "ssh-agent", "-D", "-a", str(socket)]
    agent = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            assert agent.poll() is None
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        yield socket
    finally:
        agent.kill()
        agent.wait()
