"""A run folder has one writer at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgenas.errors import EdgeNASError, RunError
from edgenas.pipeline.run_folder import Layout

_HOLDER = """
import sys, time
from pathlib import Path
from edgenas.pipeline.run_folder import Layout
with Layout(Path(sys.argv[1])).writing():
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
    with pytest.raises(RunError, match=message) as caught, Layout(tmp_path).writing():
        pass
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_killed_writer_lets_go(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    """A holder that is killed by SIGKILL leaves nothing behind that keeps the next one out."""
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with Layout(tmp_path).writing():
        assert tmp_path.is_dir()


def test_a_writer_lets_go_at_the_end_and_after_an_error(tmp_path: Path) -> None:
    """The lock can be taken again after a step, however it ended."""
    layout = Layout(tmp_path)
    with pytest.raises(KeyError), layout.writing():
        raise KeyError
    with layout.writing():
        pass
    with layout.writing():
        pass


def test_one_process_cannot_write_twice_either(tmp_path: Path) -> None:
    """A second step inside the first is refused, too."""
    layout = Layout(tmp_path)
    with layout.writing(), pytest.raises(RunError, match="another edgenas command"), layout.writing():
        pass


def test_the_folder_is_made(tmp_path: Path) -> None:
    """Writing into a run that does not exist makes its folder."""
    root = tmp_path / "runs" / "new"
    with Layout(root).writing():
        assert root.is_dir()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """A path below a file gives an error that names it and the reason."""
    file = tmp_path / "file"
    file.write_text("")
    message = r"file/run: cannot be written \(Not a directory\); choose"
    with pytest.raises(EdgeNASError, match=message) as caught, Layout(file / "run").writing():
        pass
    assert "\n" not in str(caught.value)


def test_everything_lies_below_the_root_and_apart(tmp_path: Path) -> None:
    """Each path is below the run folder, and no two are equal: not of two targets, nor of two budgets."""
    layout = Layout(tmp_path)
    targets = [
        path
        for target in ("pi", "jetson")
        for path in (
            layout.measurements(target),
            layout.table(target),
            layout.front(target),
            layout.picture(target),
            layout.choice(target, "1ms"),
            layout.choice(target, "2ms"),
            layout.bundle(target, "abc-1"),
            layout.bundle(target, "abc-2"),
        )
    ]
    paths = [layout.run, layout.data, layout.checkpoint, layout.teacher, layout.evaluated, *targets]
    assert all(path.is_relative_to(tmp_path) for path in paths)
    assert len(set(paths)) == len(paths)
