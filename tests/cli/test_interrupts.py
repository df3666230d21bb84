"""Ctrl-C, pressed in real processes: one line and exit code 130."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from edgenas.devices.ssh.testing import Sshd

Interrupt = Callable[..., tuple[int, str]]

RESUMES = "edgenas: interrupted; the same command resumes where it stopped\n"
BEGINS_ANEW = "edgenas: interrupted; the same command begins anew\n"


@pytest.fixture
def interrupt(tmp_path: Path) -> Interrupt:
    """Press Ctrl-C in a command after some seconds; returns its exit code and standard error."""

    def press(after_s: float, *arguments: object) -> tuple[int, str]:
        command = [sys.executable, "-m", "edgenas", *map(str, arguments)]
        with subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            time.sleep(after_s)
            os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        return process.returncode, errors

    return press


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "--subnets", "400"),
        ("profile", "--minutes", "5"),
        ("profile", "--check"),
        ("choose", "--latency", "40ms"),
        ("finetune", "--arch", "max", "--epochs", "4000"),
        ("export", "--arch", "max", "--precision", "int8", "--precision", "fp32", "--out", "ship"),
    ],
    ids=" ".join,
)
@pytest.mark.slow
def test_a_step_of_a_run_resumes(
    interrupt: Interrupt, finished: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """A step says that the same command resumes."""
    run = shutil.copytree(finished, tmp_path / "run")
    assert interrupt(1.5, arguments[0], "--run", run, *arguments[1:]) == (130, RESUMES)


@pytest.mark.slow
def test_training_resumes(interrupt: Interrupt) -> None:
    """Training says that the same command resumes."""
    assert interrupt(6, "train", "--run", "run") == (130, RESUMES)
    assert interrupt(6, "train", "--run", "run") == (130, RESUMES)


@pytest.mark.slow
def test_a_search_begins_anew(interrupt: Interrupt, finished: Path, tmp_path: Path) -> None:
    """A search keeps nothing of an earlier one, and says so."""
    run = shutil.copytree(finished, tmp_path / "run")
    code, errors = interrupt(1.5, "search", "--run", run, "--seed", 1)
    assert code == 130
    assert errors.endswith(BEGINS_ANEW)


@pytest.mark.slow
def test_measuring_begins_anew(interrupt: Interrupt, finished: Path, tmp_path: Path) -> None:
    """Measuring keeps nothing for the next call, and says so."""
    (model,) = finished.glob("targets/*/bundles/*/model.onnx")
    copies = [shutil.copy(model, tmp_path / f"{number}.onnx") for number in range(9)]
    code, errors = interrupt(1.5, "measure", *copies)
    assert code == 130
    assert errors.endswith("the same command begins anew\n")


@pytest.mark.slow
def test_a_set_up_begins_anew(interrupt: Interrupt, sshd: Sshd, tmp_path: Path) -> None:
    """Setting up a board says that the same command begins anew, and leaves the board usable."""
    data = sshd.profile(work_dir=str(tmp_path / "board")).to_dict()
    connection = {key: value for key, value in data["connection"].items() if value is not None}
    profile = {"name": data["name"], "connection": connection, "work_dir": data["work_dir"]}
    runtimes = {"runtimes": {"onnxruntime": {}}, "default": {"runtime": "onnxruntime"}}
    (tmp_path / "board.yaml").write_text(yaml.safe_dump({**profile, **runtimes}))
    code, errors = interrupt(2, "device", "setup", "board.yaml")
    assert (code, errors.splitlines(keepends=True)[-1]) == (130, BEGINS_ANEW)


@pytest.mark.parametrize("command", ["train", "finetune"])
def test_while_the_command_line_is_loaded(tmp_path: Path, command: str) -> None:
    """Ctrl-C is one line before a command has begun, and the exit code is 130 within code made at run time, too."""
    (tmp_path / "typer.py").write_text("import os, signal\nexec('os.kill(os.getpid(), signal.SIGINT)')\n")
    words = [sys.executable, "-m", "edgenas", command, "--run", "run"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", RESUMES)


def test_at_a_question(sshd: Sshd, tmp_path: Path) -> None:
    """Ctrl-C where a host key is to be confirmed is no answer: nothing is recorded."""
    known_hosts = tmp_path / "known_hosts"
    where = ["--host", f"{sshd.user}@127.0.0.1:{sshd.port}", "--identity-file", str(sshd.folder / "client_key")]
    where += ["--known-hosts", str(known_hosts)]
    command = [sys.executable, "-u", "-m", "edgenas", "device", "new", "board", *where]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while process.stdout.read(1) != "?":
            pass
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, BEGINS_ANEW)
    assert not known_hosts.exists()
