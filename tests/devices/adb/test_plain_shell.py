"""Scripts of a phone's own shell, run by this machine's."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from edgenas.devices.adb import plain_shell
from edgenas.devices.adb.plain_shell import PlainShell
from edgenas.devices.contract import Deadline
from edgenas.devices.worker_device import MARK
from edgenas.errors import DeviceError


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", script, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": os.environ["PATH"], **environment},
    )


def test_a_folder_that_is_gone_is_not_the_commands_status(tmp_path: Path) -> None:
    """The shell's own status for what it cannot run is given where the command did not run."""
    assert run(plain_shell._RUN, str(tmp_path), "sh", "-c", "exit 1").returncode == 1
    assert run(plain_shell._RUN, str(tmp_path / "absent"), "sh", "-c", "exit 1").returncode == 126
    assert run(plain_shell._RUN, str(tmp_path), "no-such-program").returncode == 127


def test_size_and_digest_of_a_file_are_said(tmp_path: Path) -> None:
    """The size stands on the first line; of an absent file nothing is said."""
    (tmp_path / "file").write_bytes(b"content")
    size, digest = run(plain_shell._SIZE_AND_DIGEST, str(tmp_path / "file")).stdout.splitlines()[1:]
    assert (size.strip(), digest[:64]) == ("7", "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73")
    assert run(plain_shell._SIZE_AND_DIGEST, str(tmp_path / "absent")).stdout.count("\n") == 1


@pytest.mark.parametrize("size", [str((256 << 20) + 1), "9" * 400, "-1", "many"])
def test_a_file_of_impossible_size_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    """What a device says of a file's size is checked before adb is asked for it."""
    shell = PlainShell.__new__(PlainShell)
    shell.folder = "/work"
    monkeypatch.setattr(shell, "_run_script", lambda *of, **options: f"{size}\n{'0' * 64}")
    with pytest.raises(DeviceError, match=r"file: has .* bytes on the device, which is no size of at most 256 MiB"):
        shell.pull("file", "file", tmp_path / "file", Deadline(10))
    assert not (tmp_path / "file").exists()


@pytest.fixture
def lock_script(tmp_path: Path) -> str:
    """Takes a lock below a folder of the test's own instead of /tmp, which is absent at first."""
    return plain_shell._LOCK.replace("/tmp", f"{tmp_path}/tmp")  # noqa: S108


def test_the_lock_is_where_the_worker_has_it(lock_script: str, tmp_path: Path) -> None:
    """In /tmp; where there is none in TMPDIR, and else in the work_dir."""
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    assert run(lock_script, str(work), "me").stdout == f"{MARK}taken\n"
    assert (work / "edgenas.lock").exists()
    run(lock_script, str(work), "me", TMPDIR=str(temporary))
    assert (temporary / "edgenas.lock").exists()
    (tmp_path / "tmp").mkdir()
    run(lock_script, str(work), "me", TMPDIR=str(temporary))
    assert (tmp_path / "tmp/edgenas.lock").stat().st_mode & 0o777 == 0o666


def test_the_holder_of_the_lock_is_said(lock_script: str, tmp_path: Path) -> None:
    """A lock that another process holds is not taken, and what it noted is printed."""
    with (tmp_path / "edgenas.lock").open("w") as lock:
        lock.write("somebody")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(lock_script, str(tmp_path), "me").stdout == f"{MARK}by somebody\n"


def test_a_lock_that_cannot_be_taken_has_no_holder(lock_script: str, tmp_path: Path) -> None:
    """Nobody waits for a holder where there is no flock, or where the file is a link."""
    done = run(lock_script, str(tmp_path), "me", PATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "it has no flock\n")
    (tmp_path / "edgenas.lock").symlink_to(tmp_path / "file")
    done = run(lock_script, str(tmp_path), "me")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("is a link\n")


def test_the_least_recently_used_files_go(tmp_path: Path) -> None:
    """The newest stay up to the limit, whatever their names are; files that fit are left alone."""
    files = tmp_path / "files"
    files.mkdir()
    for age, name in enumerate(["b", "a", "d", "c"]):
        (files / name).write_bytes(bytes(400))
        os.utime(files / name, (1e9 - age, 1e9 - age))
    run(plain_shell._TRIM, str(tmp_path), "1600")
    assert len(list(files.iterdir())) == 4
    run(plain_shell._TRIM, str(tmp_path), "1000")
    assert {path.name for path in files.iterdir()} == {"a", "b"}


def test_a_folder_goes_when_nobody_holds_it(tmp_path: Path) -> None:
    """The age by a clock that jumps does not count: what a living session holds stays, what a reset left goes."""
    held, left, fresh, old = (tmp_path / f"edgenas-shell-{name}" for name in ("held", "left", "fresh", "old"))
    for folder in (held, left, fresh, old):
        folder.mkdir()
    for folder in (held, left):
        (folder / ".lock").touch()
    for folder in (held, old):
        os.utime(folder, (0, 0))
    with (held / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run(plain_shell._KEEPER, str(tmp_path))
    assert done.stderr == ""
    assert {path.name for path in tmp_path.iterdir()} == {held.name, fresh.name, "files"}


def test_the_work_folder_is_held(tmp_path: Path) -> None:
    """While a session lives, another does not remove its folder; it goes with its session."""
    command = ["/bin/sh", "-c", plain_shell._KEEPER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as session:
        assert session.stdout is not None
        folder = Path(session.stdout.readline().strip().removeprefix(MARK))
        run(plain_shell._KEEPER, str(tmp_path))
        assert [path.name for path in folder.iterdir()] == [".lock"]
        session.communicate("\n", timeout=60)
    assert not folder.exists()
