"""This machine as a device."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgenas.devices import Deadline, Device, connect_device, load_profile
from edgenas.devices.local import LocalDevice
from edgenas.devices.profile_files import profile_from_dict
from edgenas.devices.testing import DeviceContract
from edgenas.errors import DeviceError
from edgenas.on_device.work_folder import DeviceLock


def local_device(work_dir: Path, python: str | None = None) -> LocalDevice:
    data = load_profile("localhost").to_dict()
    return LocalDevice(profile_from_dict({**data, "work_dir": str(work_dir), "python": python}, "test"))


class TestContract(DeviceContract):
    @pytest.fixture
    def device(self, tmp_path: Path) -> Iterator[Device]:
        with local_device(tmp_path / "work") as device:
            yield device

    @pytest.fixture
    def other(self, tmp_path: Path) -> Iterator[Device]:
        with local_device(tmp_path / "another") as device:
            yield device


def test_connect_gives_this_machine() -> None:
    """The shipped profile localhost connects to this machine and knows its cores."""
    with connect_device(load_profile("localhost")) as device:
        facts = device.facts()
    assert facts["cores"] == os.cpu_count()
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["synthetic"] is False


def test_close_removes_the_work_folder(tmp_path: Path) -> None:
    """After closing nothing is left where the work folder was."""
    with local_device(tmp_path):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_dead_owners_folder_is_swept(tmp_path: Path) -> None:
    """The next connection removes the folder of one that was killed, and leaves a living one's alone."""
    code = """
        import os, signal, sys
        from pathlib import Path
        from edgenas.on_device.work_folder import WorkFolder
        WorkFolder(Path(sys.argv[1]))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    left = set(tmp_path.iterdir())
    assert len(left) == 1
    with local_device(tmp_path), local_device(tmp_path):
        assert len(list(tmp_path.iterdir())) == 2
        assert not left & set(tmp_path.iterdir())


def test_a_deadline_kills_grandchildren(tmp_path: Path, is_gone: Callable[[int], bool]) -> None:
    """A command that ran out of time takes the processes that it started along."""
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    lines: list[str] = []
    with local_device(tmp_path) as device, pytest.raises(DeviceError):
        device.run([sys.executable, "-c", code], deadline=Deadline(5), on_line=lines.append)
    assert is_gone(int(lines[0]))


def test_a_grandchild_that_holds_the_pipe_ends_with_its_parent(tmp_path: Path, is_gone: Callable[[int], bool]) -> None:
    """A process left behind that still holds standard output does not make the run wait for it."""
    code = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)"
    start = time.monotonic()
    with local_device(tmp_path) as device:
        done = device.run([sys.executable, "-c", code], deadline=Deadline(30))
    assert time.monotonic() - start < 60
    assert is_gone(int(done.stdout))


def test_cancel_ends_a_run_from_another_thread(tmp_path: Path) -> None:
    """A cancelled deadline ends the command at once."""
    import threading

    deadline = Deadline(60)
    timer = threading.Timer(0.3, deadline.expire_now)
    timer.start()
    with local_device(tmp_path) as device, pytest.raises(DeviceError, match="cancelled"):
        device.run([sys.executable, "-c", "import time; time.sleep(600)"], deadline=deadline)
    assert deadline.seconds_left == 0


def test_a_large_request_is_sent_whole(tmp_path: Path) -> None:
    """Standard input of more than a pipe holds arrives, while output flows back."""
    code = "import sys; print(len(sys.stdin.readline()))"
    with local_device(tmp_path) as device:
        done = device.run([sys.executable, "-c", code], deadline=Deadline(30), stdin=b"x" * 1_000_000 + b"\n")
    assert done.stdout == "1000001\n"


def test_a_signal_is_a_negative_status(tmp_path: Path) -> None:
    """A command that was killed says by which signal."""
    code = "import os; os.abort()"
    with local_device(tmp_path) as device:
        done = device.run([sys.executable, "-c", code], deadline=Deadline(30))
    assert done.exit_status == -signal.SIGABRT


def test_a_missing_interpreter_is_named(tmp_path: Path) -> None:
    """An interpreter that is not there is an error that names it."""
    with local_device(tmp_path, "/no/python") as device, pytest.raises(DeviceError, match="/no/python"):
        device.run([device.python, "-V"], deadline=Deadline(30))


def test_a_lock_that_cannot_be_taken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else in the lock's place is named, with the remedy."""
    monkeypatch.setattr("edgenas.devices.local.DeviceLock", lambda path: DeviceLock(tmp_path))
    refused = pytest.raises(DeviceError, match=f"lock {tmp_path} cannot be taken .*directory.* writable for you")
    with local_device(tmp_path) as device, refused, device.lock(Deadline(600)):
        pass


def test_a_work_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A work_dir that is a file is refused with the remedy."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="work_dir in the profile"):
        local_device(tmp_path / "file")


def test_a_work_folder_of_nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A work_dir in the home folder of a user who has none is refused with the remedy."""

    def refuse(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", refuse)
    with pytest.raises(DeviceError, match=r"in ~/work \(you have no home folder\); .*work_dir in the profile"):
        local_device(Path("~/work"))


def test_a_command_gets_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables with passphrases and tokens are not passed on; those that find programs and libraries are."""
    for name in ("EDGENAS_SSH_PASSPHRASE", "SSH_AUTH_SOCK", "GITHUB_TOKEN", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "x")
    with local_device(tmp_path) as device:
        program = "import os; print(*sorted(os.environ))"
        names = device.run([sys.executable, "-c", program], deadline=Deadline(30)).stdout.split()
    assert {"PATH", "LD_LIBRARY_PATH"} <= set(names)
    assert not {"EDGENAS_SSH_PASSPHRASE", "SSH_AUTH_SOCK", "GITHUB_TOKEN"} & set(names)
