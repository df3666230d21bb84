"""The commands that commands print, run as they are printed: in a shell, where no environment is activated."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from edgenas.export import build_onnx, random_weights
from edgenas.shell import quote
from edgenas.space import MobileNetV3
from tests.small_run import SCHEDULE, SPACE

Shell = Callable[[str], str]

START = f"{quote(sys.executable)} -m edgenas"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Run a line in a folder with a space in its name and return what it prints."""
    folder = tmp_path / "my work"
    folder.mkdir()

    def run(line: str) -> str:
        environment = {**os.environ, "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout

    return run


def next_line(out: str) -> str:
    """The line that a command says is next."""
    (line,) = re.findall(r"^next: (.+)$", out, re.MULTILINE)
    return str(line)


@pytest.mark.slow
def test_from_training_to_a_measurement(shell: Shell, finished: Path, tmp_path: Path) -> None:
    """Each line from train on leads to the next step of the run, down to the measurement of the exported file."""
    shutil.copytree(finished, tmp_path / "my runs" / "small")
    config = tmp_path / "my work" / "config.yaml"
    config.write_text(yaml.safe_dump({"space": SPACE.to_dict(), "schedule": SCHEDULE}))
    line = f"{START} train config.yaml --run '../my runs/small'"
    for step in ("evaluate", "profile", "search", "choose", "export", "measure"):
        line = next_line(shell(line))
        assert line.startswith(f"{START} {step} ")
        if step == "profile":
            line += " --minutes 0.01"  # instead of ten
        if step == "choose":  # of twenty microseconds a busy machine makes forty
            line = f"{line.partition(' --latency ')[0]} --latency 1s"
    assert "validity: " in shell(line)


def test_from_a_new_device_to_a_measurement(shell: Shell, tmp_path: Path) -> None:
    """Each line from device new on leads to the next step, for a profile in a folder of its own, too."""
    smallest = MobileNetV3(width=0.1, resolutions=(32,), classes=4).smallest
    (tmp_path / "my work" / "MODEL").with_suffix(".onnx").write_bytes(build_onnx(smallest, random_weights(smallest)))
    check = next_line(shell(f"{START} device new board --local --out '../my board.yaml'"))
    measure = next_line(shell(check))
    assert measure == f"{START} measure MODEL --device '../my board.yaml'"
    assert "validity: " in shell(measure.replace("MODEL", "MODEL.onnx"))
