"""A run folder has one writer at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgenas.errors import EdgeNASError, RunError, UsageError
from edgenas.pipeline.progress import Silent
from edgenas.pipeline.run_folder import RunFolder
from edgenas.pipeline.workspace import Workspace
from edgenas.space import MobileNetV3

SPACE = MobileNetV3(width=0.35, resolutions=(24, 32), classes=10)

_HOLDER = """
import sys, time
from pathlib import Path
from edgenas.pipeline.progress import Silent
from edgenas.pipeline.run_folder import RunFolder
from edgenas.pipeline.workspace import Workspace
from edgenas.space import MobileNetV3

SPACE = MobileNetV3(width=0.35, resolutions=(24, 32), classes=10)
with RunFolder(Path(sys.argv[1])).writing():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of ``tmp_path``."""
    command = [sys.executable, "-c", _HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_writer_is_refused(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    """While another process writes, a command ends with one line that says so and what to do."""
    message = "another edgenas command is writing this run; wait"
    with pytest.raises(RunError, match=message) as caught, RunFolder(tmp_path).writing():
        pass
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_killed_writer_lets_go(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    """A holder that is killed by SIGKILL leaves nothing behind that keeps the next one out."""
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with RunFolder(tmp_path).writing():
        assert tmp_path.is_dir()


def test_a_writer_lets_go_at_the_end_and_after_an_error(tmp_path: Path) -> None:
    """The lock can be taken again after a step, however it ended."""
    folder = RunFolder(tmp_path)
    with pytest.raises(KeyError), folder.writing():
        raise KeyError
    with folder.writing():
        pass
    with folder.writing():
        pass


def test_one_process_cannot_write_twice_either(tmp_path: Path) -> None:
    """A second step inside the first is refused, too."""
    folder = RunFolder(tmp_path)
    with folder.writing(), pytest.raises(RunError, match="another edgenas command"), folder.writing():
        pass


def test_the_folder_is_made(tmp_path: Path) -> None:
    """Writing into a run that does not exist makes its folder."""
    root = tmp_path / "runs" / "new"
    with RunFolder(root).writing():
        assert root.is_dir()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """A path below a file gives an error that names it and the reason."""
    file = tmp_path / "file"
    file.write_text("")
    message = r"file/run: cannot be written \(Not a directory\); choose"
    with pytest.raises(EdgeNASError, match=message) as caught, RunFolder(file / "run").writing():
        pass
    assert "\n" not in str(caught.value)


def test_the_lock_is_no_link(tmp_path: Path) -> None:
    """A link at the lock's place is not followed: what it links to keeps its content."""
    (tmp_path / "mine").write_text("text")
    (tmp_path / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(UsageError, match=r"\.lock: is a link or no regular file; move it away"):
        RunFolder(tmp_path).writing().__enter__()
    assert (tmp_path / "mine").read_text() == "text"


def test_a_pipe_at_the_locks_place_is_not_waited_for(tmp_path: Path) -> None:
    """A named pipe that nobody reads is refused at once."""
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(UsageError, match=r"\.lock: is a link or no regular file"):
        RunFolder(tmp_path).writing().__enter__()


@pytest.mark.parametrize("place", ["targets", "training/checkpoint.safetensors", "a/b/c"])
def test_a_run_folder_with_a_link_is_not_opened(tmp_path: Path, place: str) -> None:
    """A link at any depth is refused by name, so that a folder one was given makes edgenas write nowhere else."""
    run = tmp_path / "run"
    Workspace(run, SPACE, Silent())
    link = run / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path)
    for open_run in (lambda: Workspace(run, None, Silent()), RunFolder(run).writing().__enter__):
        with pytest.raises(RunError, match=f"{place}: is a link, which a run folder may not hold"):
            open_run()


def test_everything_lies_below_the_root_and_apart(tmp_path: Path) -> None:
    """Each path is below the run folder, and no two are equal: not of two targets, nor of two budgets."""
    folder = RunFolder(tmp_path)
    targets = [
        path
        for target in ("pi", "jetson")
        for path in (
            folder.measurements(target),
            folder.table(target),
            folder.plan(target),
            folder.check(target, 1),
            folder.check(target, 2),
            folder.check_plan(target, 1),
            folder.front(target),
            folder.picture(target),
            folder.choice(target, "1ms"),
            folder.choice(target, "2ms"),
            folder.bundle(target, "abc-1"),
            folder.bundle(target, "abc-2"),
            folder.format_bundle(target, "abc-1"),
        )
    ]
    paths = [folder.run, folder.data, folder.checkpoint, folder.training.teacher, folder.evaluated, *targets]
    assert all(path.is_relative_to(tmp_path) for path in paths)
    assert len(set(paths)) == len(paths)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_targets_with_a_table_are_listed(tmp_path: Path) -> None:
    """A target with a table is listed by its name, dots and all; one that has only measurements or a plan is not."""
    folder = RunFolder(tmp_path)
    assert folder.targets_with_table() == []
    touch(folder.table("pi-1t"), folder.table("board-cpu0.2"), folder.plan("jetson-1t"), folder.measurements("nano-1t"))
    assert folder.targets_with_table() == ["board-cpu0.2", "pi-1t"]


def test_targets_that_were_profiled_are_listed_by_their_device(tmp_path: Path) -> None:
    """Those of a device are listed that have a table or are on the way to one, and nothing of other devices."""
    folder = RunFolder(tmp_path)
    touch(folder.table("pi-1t"), folder.plan("pi-1t"), folder.plan("pi-4t"), folder.table("pizza-1t"))
    assert folder.profiled_targets("pi") == ["pi-1t", "pi-4t"]


def test_checks_that_have_ended_are_numbered(tmp_path: Path) -> None:
    """The tenth check comes after the second, and one that has only a plan has not ended."""
    folder = RunFolder(tmp_path)
    assert folder.check_numbers("pi") == []
    touch(folder.check("pi", 2), folder.check("pi", 10), folder.check_plan("pi", 11), folder.check("jetson", 12))
    assert folder.check_numbers("pi") == [2, 10]


def test_choices_are_listed(tmp_path: Path) -> None:
    """The choices of a target, and of no other."""
    folder = RunFolder(tmp_path)
    touch(
        folder.choice("pi", "latency-2ms"), folder.choice("pi", "latency-1ms"), folder.choice("jetson", "latency-1ms")
    )
    assert folder.choices("pi") == [folder.choice("pi", "latency-1ms"), folder.choice("pi", "latency-2ms")]


def test_two_processes_cannot_make_one_run_of_different_spaces(tmp_path: Path) -> None:
    """Whichever comes second is told so, and the run is of the first one's space."""
    program = (
        "import sys\nfrom edgenas import MobileNetV3, Run\n"
        "space = MobileNetV3(width=float(sys.argv[2]), resolutions=(24, 32), classes=10)\n"
        "sys.stdin.read()\n"
        "Run(sys.argv[1], space)\n"
    )
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "run"), width], stdin=pipe, stderr=pipe)
        for width in ("0.35", "0.5")
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    errors = [process.communicate(timeout=60)[1].decode() for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 1]
    assert any("use another run folder" in error or "wait for it to end" in error for error in errors)
