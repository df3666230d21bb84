"""Fixtures of the tests of devices."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from edgenas.devices import DeviceProfile
from edgenas.devices.ssh.testing import Sshd

Gone = Callable[[int], bool]
OpenSsh = Callable[..., str]
Mounted = Callable[[str], AbstractContextManager[DeviceProfile]]


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
def mounted(tmp_path: Path) -> Mounted:
    """Starts a server whose work_dir is a memory disk with these mount options, private to it; gives its profile."""
    if os.environ.get("EDGENAS_REQUIRE_DEVICES") != "1":
        pytest.skip("mounts a disk, which only EDGENAS_REQUIRE_DEVICES=1 asks for")
    unshare = shutil.which("unshare")
    if os.getuid() != 0 or unshare is None:
        pytest.skip("mounting a disk needs root and unshare")
    allowed = subprocess.run([unshare, "--mount", "true"], capture_output=True, text=True, check=False)
    if allowed.returncode:
        pytest.skip(f"mounting a disk is not permitted here ({allowed.stderr.strip()})")
    folder = tmp_path / "disk"
    folder.mkdir()

    @contextmanager
    def serve(options: str) -> Iterator[DeviceProfile]:
        script = f'mount -t tmpfs -o {options} tmpfs "$0" && exec "$@"'
        prefix = [unshare, "--mount", "--propagation", "private", "sh", "-c", script, str(folder)]
        with Sshd(tmp_path / "sshd", prefix) as server:
            yield server.profile(work_dir=str(folder))

    return serve


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
