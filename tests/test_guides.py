"""The guides' commands, run as they are written."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgenas.devices.ssh.testing import Sshd
from edgenas.export import build_onnx, random_weights
from edgenas.space import MobileNetV3

GUIDES = Path(__file__).parents[1] / "docs" / "guides"
Run = Callable[..., subprocess.CompletedProcess[str]]


def blocks(guide: str) -> list[list[str]]:
    """The lines of each block of commands in a guide."""
    return [block.partition("```")[0].splitlines() for block in (GUIDES / guide).read_text().split("```sh\n")[1:]]


@pytest.fixture
def board(loopback: Sshd, tmp_path: Path) -> Iterator[Sshd]:
    """A machine whose python3 has no packages at all, not even pip, and whose home folder is empty."""
    home = tmp_path / "home"
    home.mkdir()
    venv.create(home / "system", with_pip=False)
    server = Sshd(tmp_path / "sshd")
    path = f"{home}/system/bin:/usr/bin:/bin"
    config = server.folder / "sshd_config"
    config.write_text(config.read_text().replace("SetEnv ", f"SetEnv HOME={home} PATH={path} "))  # one line only counts
    with server:
        yield server


@pytest.fixture
def person(board: Sshd, tmp_path: Path) -> Run:
    """Somebody who can log in to it as ``board``, and never has: runs commands in a folder with a model file."""
    ssh = shutil.which("ssh")
    if ssh is None:
        pytest.skip("no ssh client is installed here; install openssh-client")
    folder, config = tmp_path / "work", tmp_path / "ssh_config"
    (tmp_path / "bin").mkdir()
    folder.mkdir()
    config.write_text(
        f"Host board\n HostName 127.0.0.1\n Port {board.port}\n IdentityAgent none\n"
        f" IdentityFile {board.folder}/client_key\n UserKnownHostsFile {tmp_path}/known_hosts\n"
    )
    wrapper = tmp_path / "bin" / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(ssh)} -F {shlex.quote(str(config))} "$@"\n')
    wrapper.chmod(0o755)
    smallest = MobileNetV3(width=0.1, resolutions=(32,), classes=4).smallest
    (folder / "model.onnx").write_bytes(build_onnx(smallest, random_weights(smallest)))
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}

    def run(command: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        program, *arguments = shlex.split(command.replace("pi@", f"{board.user}@"))
        assert program == "edgenas"
        return subprocess.run(
            [sys.executable, "-m", "edgenas", *arguments],
            cwd=folder, env=environment, input=answer, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    return run


@pytest.mark.slow
def test_a_new_board_is_measured_in_four_commands(person: Run, tmp_path: Path) -> None:
    """From ssh to a measurement with its validity: new, setup, check, measure, on a board with nothing installed."""
    (new, setup, check, measure), *others = blocks("profile_a_device.md")
    done = person(new, answer="y\n")
    assert done.returncode == 0, done.stderr
    assert "shows the ssh-ed25519 key SHA256:" in done.stdout
    before = person(check)
    assert (before.returncode, "FAILED" in before.stdout) == (1, True), before.stdout + before.stderr
    assert "edgenas device setup my-board" in before.stdout
    done = person(setup)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "home" / ".cache" / "edgenas" / "venv" / "bin" / "python").exists()
    done = person(check)
    assert done.returncode == 0, done.stdout
    assert "next: edgenas measure MODEL --device my-board" in done.stdout
    done = person(measure)
    assert done.returncode == 0, done.stderr
    assert "validity" in done.stdout
    again = [line for block in others for line in block if line.endswith(("trust my-board", "--offline"))]
    assert [person(line).returncode for line in again] == [0, 0]


@pytest.mark.slow
def test_a_network_is_picked_in_a_run(finished: Path, tmp_path: Path) -> None:
    """The commands of the guide run as they are written, where the demo's run is a small one."""
    shutil.copytree(finished, tmp_path / "runs" / "demo")
    for line in [line for block in blocks("pick_for_a_budget.md") for line in block]:
        command = [sys.executable, "-m", "edgenas", *shlex.split(line)[1:]]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, line + done.stderr
    assert (tmp_path / "front.csv").exists()
    assert (tmp_path / "front.png").exists()


def test_the_problem_of_the_guide_is_searched() -> None:
    """The first Python example of the guide runs as it is written."""
    text = (GUIDES / "pick_for_a_budget.md").read_text().split("```python\n")[1].partition("```")[0]
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "'params': " in done.stdout
