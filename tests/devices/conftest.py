"""Fixtures of the tests of devices."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from edgenas.devices import Deadline, DeviceProfile, connect_device
from edgenas.devices.setup import InstalledRuntimes
from edgenas.devices.worker_device import MARK, WorkerDevice
from edgenas.pipeline.device_setup import create_profile, profile_yaml, set_up_device
from tests.fixtures.virtual_machines import board_profile
from tests.stand_ins.machine import Machine

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


@dataclass(frozen=True)
class SetUpBoard:
    """An emulated board after its set-up.

    Its profile as ``edgenas device new`` wrote it before, and as it is used, as a file and as data; what set-up said
    and returned.
    """

    machine: Machine
    written: Path
    file: Path
    profile: DeviceProfile
    said: list[str]
    installed: InstalledRuntimes


def set_up_board(machine: Machine, name: str, folder: Path) -> SetUpBoard:
    """Write the profile of an emulated board, and set it up without options."""
    profile, written, file = board_profile(machine, name), folder / "written.yaml", folder / f"{name}.yaml"
    create_profile(name, asdict(profile.connection), lambda key: False, written)
    said: list[str] = []
    installed = set_up_device(profile, say=said.append)
    file.write_text(profile_yaml({key: value for key, value in profile.to_dict().items() if value not in (None, {})}))
    return SetUpBoard(machine, written, file, profile, said, installed)


def run_on_board(board: SetUpBoard, script: str) -> str:
    """Run a script of one line in the shell of a board, over a connection of its own; return what it prints."""
    with connect_device(board.profile) as device:
        assert isinstance(device, WorkerDevice)
        return device.run_in_shell(Deadline(300), f'echo "{MARK}"; {script}')


@pytest.fixture(scope="session")
def installed_bare(booted_board: Machine, tmp_path_factory: pytest.TempPathFactory) -> SetUpBoard:
    """The board without Python after its set-up. Tests take ``ready_board``."""
    return set_up_board(booted_board, "bare-board", tmp_path_factory.mktemp("profiles"))


@pytest.fixture(scope="session")
def installed_debian(booted_debian: Machine, tmp_path_factory: pytest.TempPathFactory) -> SetUpBoard:
    """The board with Debian after its set-up. Tests take ``ready_debian``."""
    return set_up_board(booted_debian, "debian-board", tmp_path_factory.mktemp("profiles"))


@pytest.fixture
def ready_board(installed_bare: SetUpBoard, bare_board: Machine) -> SetUpBoard:
    """The board without Python, set up; what a test does to it is undone after it."""
    return installed_bare


@pytest.fixture
def ready_debian(installed_debian: SetUpBoard, debian_board: Machine) -> SetUpBoard:
    """The board with Debian, set up; what a test does to it is undone after it."""
    return installed_debian


@pytest.fixture(params=["ready_board", "ready_debian"])
def any_board(request: pytest.FixtureRequest) -> SetUpBoard:
    """Each of the emulated boards, set up; what a test does to it is undone after it."""
    board: SetUpBoard = request.getfixturevalue(request.param)
    return board
