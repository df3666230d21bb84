"""A machine reached over SSH, against a real server on loopback."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgenas.devices import Deadline, Device, DeviceProfile, connect_device, link
from edgenas.devices.ssh.device import SshDevice
from edgenas.devices.ssh.testing import Sshd
from edgenas.devices.testing import DeviceContract
from edgenas.errors import DeviceError

SLEEPER = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
# Another host, in a process of its own: connects, and then holds the lock or runs a command until it is killed.
HOST = """
import signal, sys, time
from edgenas.devices import Deadline, load_profile
from edgenas.devices.ssh.device import SshDevice
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
with SshDevice(load_profile(sys.argv[1]), silence_seconds=float(sys.argv[3])) as device:
    if sys.argv[2] == "lock":
        with device.lock(Deadline(600)):
            print("locked", flush=True)
            time.sleep(600)
    device.run(
        [device.python, "-c", sys.argv[2]], deadline=Deadline(600), on_line=lambda line: print(line, flush=True)
    )
"""


class TestContract(DeviceContract):
    @pytest.fixture
    def device(self, ssh_profile: DeviceProfile) -> Iterator[Device]:
        with connect_device(ssh_profile) as device:
            yield device

    @pytest.fixture
    def other(self, sshd: Sshd, tmp_path: Path) -> Iterator[Device]:
        with connect_device(sshd.profile(work_dir=str(tmp_path / "another"))) as device:
            yield device


@pytest.fixture
def board(ssh_profile: DeviceProfile) -> Path:
    """The folder that everything on the device lies in."""
    assert ssh_profile.work_dir is not None
    return Path(ssh_profile.work_dir)


Host = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def host(ssh_profile: DeviceProfile, tmp_path: Path) -> Iterator[Host]:
    """Starts another host that does ``what``."""
    import yaml

    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(ssh_profile.to_dict()))
    started: list[subprocess.Popen[str]] = []

    def start(what: str, silence_seconds: float = 60.0) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOST, str(path), what, str(silence_seconds)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def wait_for_work_folders(board: Path, most: int) -> list[Path]:
    """The work folders there, as soon as there are no more than this many, within half a minute."""
    end = time.monotonic() + 30
    while len(found := list(board.glob("edgenas-work-*"))) > most and time.monotonic() < end:
        time.sleep(0.02)
    return found


# -- files ---------------------------------------------------------------------------


def test_a_file_is_not_sent_again(ssh_profile: DeviceProfile, board: Path, tmp_path: Path) -> None:
    """A file that the device has from another connection is used again, under any name."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(100_000))
    with connect_device(ssh_profile) as device:
        first = Path(device.push(source, "first")).stat().st_ino
    with connect_device(ssh_profile) as device:
        assert Path(device.push(source, "second")).stat().st_ino == first
        assert Path(device.push(source, "second")).read_bytes() == source.read_bytes()
    assert len(list((board / "files").iterdir())) == 1


def test_a_kept_file_that_was_damaged_is_sent_again(ssh_profile: DeviceProfile, board: Path, tmp_path: Path) -> None:
    """Files are compared by their content there, not by their name."""
    source = tmp_path / "source"
    source.write_bytes(b"content")
    with connect_device(ssh_profile) as device:
        device.push(source, "name")
    (kept,) = (board / "files").iterdir()
    kept.write_bytes(b"contend")
    with connect_device(ssh_profile) as device:
        assert Path(device.push(source, "name")).read_bytes() == b"content"


def test_a_file_that_a_command_changed_is_sent_again(ssh_profile: DeviceProfile, tmp_path: Path) -> None:
    """A pushed file that something there wrote to gets its content back."""
    source = tmp_path / "source"
    source.write_bytes(b"content")
    with connect_device(ssh_profile) as device:
        path = Path(device.push(source, "name"))
        path.unlink()
        path.write_bytes(b"changed")
        assert Path(device.push(source, "name")).read_bytes() == b"content"


def test_an_empty_file_is_a_file(ssh_profile: DeviceProfile, tmp_path: Path) -> None:
    """A file without content is pushed and pulled as one."""
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(b"")
    with connect_device(ssh_profile) as device:
        device.pull(device.push(source, "name"), back)
    assert back.read_bytes() == b""


def test_close_leaves_no_work_folder(ssh_profile: DeviceProfile, board: Path, tmp_path: Path) -> None:
    """After closing nothing is left but what is kept for the next time."""
    source = tmp_path / "source"
    source.write_bytes(b"content")
    with connect_device(ssh_profile) as device:
        device.push(source, "name")
        assert len(wait_for_work_folders(board, 1)) == 1
    assert wait_for_work_folders(board, 0) == []
    assert {path.name for path in board.iterdir()} == {"files"}


def test_a_dead_workers_folder_is_swept(sshd: Sshd, ssh_profile: DeviceProfile, board: Path) -> None:
    """The next connection removes what a worker left that could not tidy up."""
    with connect_device(ssh_profile) as device:
        lines: list[str] = []

        def kill_worker(line: str) -> None:
            lines.append(line)
            os.kill(int(line), signal.SIGKILL)

        code = "import os, time; print(os.getppid(), flush=True); input()"
        with pytest.raises(DeviceError, match="connection was lost"):
            device.run([device.python, "-c", code], deadline=Deadline(60), on_line=kill_worker)
    (left,) = board.glob("edgenas-work-*")
    with connect_device(ssh_profile) as device:
        device.run(["true"], deadline=Deadline(30))
        assert left not in board.iterdir()


# -- commands ------------------------------------------------------------------------


def test_no_shell_sees_a_command(ssh_profile: DeviceProfile) -> None:
    """Arguments arrive as they are, whatever they hold."""
    odd = ["$HOME", "a b", "'", '"', "\\", "*", ";ls", "\n", "é", "!x", "%s", ""]
    code = "import sys; print(ascii(sys.argv[1:]))"
    with connect_device(ssh_profile) as device:
        done = device.run([device.python, "-c", code, *odd], deadline=Deadline(30))
    assert done.stdout == f"{odd!a}\n"


def test_a_large_request_is_sent_whole(ssh_profile: DeviceProfile) -> None:
    """Standard input of more than the link's window arrives, while as much output flows back."""
    code = "import sys; data = sys.stdin.readline(); print(len(data)); sys.stdout.write(data)"
    with connect_device(ssh_profile) as device:
        done = device.run([device.python, "-c", code], deadline=Deadline(60), stdin=b"x" * 5_000_000 + b"\n")
    assert done.stdout == "5000001\n" + "x" * 5_000_000 + "\n"


def test_a_command_that_cannot_be_started_is_named(ssh_profile: DeviceProfile) -> None:
    """A program that is not there is an error, and the device stays usable."""
    with connect_device(ssh_profile) as device:
        with pytest.raises(DeviceError, match=r"/no/program: cannot be started \(No such file or directory\)"):
            device.run(["/no/program"], deadline=Deadline(30))
        assert device.run(["true"], deadline=Deadline(30)).exit_status == 0


def test_cancel_ends_a_run_from_another_thread(ssh_profile: DeviceProfile, is_gone: Callable[[int], bool]) -> None:
    """A cancelled deadline ends the command there, and the device stays usable."""
    deadline, lines = Deadline(600), list[str]()

    def cancel(line: str) -> None:
        lines.append(line)
        deadline.expire_now()

    with connect_device(ssh_profile) as device:
        with pytest.raises(DeviceError, match="cancelled"):
            device.run([device.python, "-c", SLEEPER], deadline=deadline, on_line=cancel)
        assert is_gone(int(lines[0]))
        assert device.run(["true"], deadline=Deadline(30)).exit_status == 0


@contextmanager
def login_shell(folder: Path, command: str) -> Iterator[Sshd]:
    """A server whose login shell does this with SSH_ORIGINAL_COMMAND."""
    with Sshd(folder) as server:
        config = server.folder / "sshd_config"
        server.stop()
        config.write_text(config.read_text() + f"ForceCommand {command}\n")
        server.start()
        yield server


def check_facts_and_a_command(server: Sshd) -> None:
    with connect_device(server.profile(python=None)) as device:
        assert device.python == "python3"
        facts = device.facts()
        assert facts["kernel"] == os.uname().release
        assert re.fullmatch(r"3\.\d+\.\d+", facts["python"])
        assert device.run(["echo", "hello"], deadline=Deadline(30)).stdout == "hello\n"


@pytest.mark.parametrize(
    "command",
    [
        'echo welcome; eval "$SSH_ORIGINAL_COMMAND"; echo bye',
        'head -c 5000000 /dev/zero >&2; eval "$SSH_ORIGINAL_COMMAND"',
        pytest.param('sleep 12; eval "$SSH_ORIGINAL_COMMAND"', marks=pytest.mark.slow),
    ],
    ids=["talks", "floods", "is slow"],
)
def test_what_a_login_shell_does_besides_does_no_harm(tmp_path: Path, command: str) -> None:
    """Text that a login shell prints before and after a command is dropped; the shell may be slow."""
    with login_shell(tmp_path / "sshd", command) as server:
        check_facts_and_a_command(server)


@pytest.mark.parametrize("shell", ["tcsh", "fish", "zsh", "dash"])
def test_any_login_shell_will_do(tmp_path: Path, shell: str) -> None:
    """Commands are quoted so that shells of other families read the same."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed here")
    flags = "-f" if shell == "tcsh" else ""
    with login_shell(tmp_path / "sshd", f'{program} {flags} -c "$SSH_ORIGINAL_COMMAND"') as server:
        check_facts_and_a_command(server)


def test_a_slow_login_shell_does_not_move_the_deadline(tmp_path: Path) -> None:
    """Looking for an interpreter before the first command takes of that command's time."""
    started = time.monotonic()
    with (
        login_shell(tmp_path / "sshd", 'sleep 600; eval "$SSH_ORIGINAL_COMMAND"') as server,
        connect_device(server.profile(python=None)) as device,
        pytest.raises(DeviceError, match="did not end within 2 s"),
    ):
        device.run(["true"], deadline=Deadline(2))
    assert time.monotonic() - started < 28


def test_a_login_shell_that_runs_nothing_is_named(tmp_path: Path) -> None:
    """A user who may not run commands is refused with what the shell says, and the text is no interpreter."""
    with (
        login_shell(tmp_path / "sshd", "echo This account is not available.; exit 1") as server,
        connect_device(server.profile(python=None)) as device,
        pytest.raises(DeviceError, match=r"its login shell runs no commands \(This account is not available\.\)"),
    ):
        device.run(["true"], deadline=Deadline(30))


def test_python_is_that_of_setup_where_it_was_made(sshd: Sshd, tmp_path: Path) -> None:
    """Without a python in the profile that of the environment in the work folder is taken, if it works."""
    environment = tmp_path / "board" / "venv" / "bin"
    environment.mkdir(parents=True)
    (environment / "python").symlink_to("/no/python")
    profile = sshd.profile(python=None, work_dir=str(tmp_path / "board"))
    with connect_device(profile) as device:
        assert device.python == "python3"
    (environment / "python").unlink()
    (environment / "python").symlink_to(sys.executable)
    with connect_device(profile) as device:
        assert device.python == str(environment / "python")


# -- several hosts -------------------------------------------------------------------


def test_two_hosts_work_at_once(ssh_profile: DeviceProfile, host: Host, board: Path) -> None:
    """Commands of two hosts run side by side, each in a folder of its own."""
    other = host("import os; print(os.getcwd(), flush=True); input()")
    theirs = read_line(other)
    with connect_device(ssh_profile) as device:
        ours = device.run([device.python, "-c", "import os; print(os.getcwd())"], deadline=Deadline(30)).stdout.strip()
        assert {theirs, ours} == {str(folder) for folder in wait_for_work_folders(board, 2)}


def test_a_killed_holder_lets_go_of_the_lock(ssh_profile: DeviceProfile, host: Host) -> None:
    """The lock of a host that was killed is free at once; until then its holder is named."""
    holder = host("lock")
    assert read_line(holder) == "locked"
    with connect_device(ssh_profile) as device:
        with pytest.raises(DeviceError, match=f"is taken by {os.uname().nodename}, process {holder.pid}, since"):
            take_and_release_lock(device, Deadline(0))
        holder.kill()
        take_and_release_lock(device, Deadline(600))


def test_a_stale_lock_expires(ssh_profile: DeviceProfile, host: Host) -> None:
    """A host that hangs while its connection stands loses the lock after a while."""
    holder = host("lock", silence_seconds=2.0)
    assert read_line(holder) == "locked"
    holder.send_signal(signal.SIGSTOP)
    with connect_device(ssh_profile) as device:
        take_and_release_lock(device, Deadline(600))


def test_a_lock_outlives_the_silence_of_a_host_that_lives(ssh_profile: DeviceProfile, host: Host) -> None:
    """A host that only waits gives signs of life and keeps the lock."""
    holder = host("lock", silence_seconds=6.0)
    assert read_line(holder) == "locked"
    with connect_device(ssh_profile) as device, pytest.raises(DeviceError, match="is taken by"):
        take_and_release_lock(device, Deadline(10))


def test_a_lock_that_cannot_be_taken_is_named(
    ssh_profile: DeviceProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something else in the lock's place is an error with the remedy, and the device stays usable."""
    program = link._build_worker_program
    elsewhere = str(tmp_path).encode()
    monkeypatch.setattr(
        link, "_build_worker_program", lambda *of: program(*of).replace(b"/tmp/edgenas.lock", elsewhere)
    )
    with connect_device(ssh_profile) as device:
        refused = rf"lock {tmp_path} cannot be taken \(Is a directory\); make it writable for you there"
        with pytest.raises(DeviceError, match=refused):
            take_and_release_lock(device, Deadline(30))
        assert device.run(["true"], deadline=Deadline(30)).exit_status == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_host_that_ends_leaves_nothing_there(
    host: Host, board: Path, is_gone: Callable[[int], bool], number: signal.Signals
) -> None:
    """However this side ends, by Ctrl-C or by force, the command there ends and its folder goes."""
    runner = host(SLEEPER)
    pid = int(read_line(runner))
    runner.send_signal(number)
    _, errors = runner.communicate(timeout=60)
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    assert is_gone(pid)
    assert wait_for_work_folders(board, 0) == []


def take_and_release_lock(device: Device, deadline: Deadline) -> None:
    with device.lock(deadline):
        pass


def test_a_hanging_host_leaves_nothing_there(
    ssh_profile: DeviceProfile, host: Host, board: Path, is_gone: Callable[[int], bool]
) -> None:
    """A command whose host gives no sign of life any more is ended."""
    runner = host(SLEEPER, silence_seconds=2.0)
    pid = int(read_line(runner))
    runner.send_signal(signal.SIGSTOP)
    assert is_gone(pid)
    assert wait_for_work_folders(board, 0) == []


def test_only_ssh_profiles_are_taken(tmp_path: Path) -> None:
    """A profile of another kind is refused by name."""
    from edgenas.devices import load_profile
    from edgenas.errors import UsageError

    with pytest.raises(UsageError, match="localhost: connection must be of kind ssh"):
        SshDevice(load_profile("localhost"))
