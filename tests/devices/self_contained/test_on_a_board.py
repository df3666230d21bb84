"""Measuring on an emulated arm64 board without Python, through a self-contained runtime that set-up puts there."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from edgenas.devices import Deadline, connect_device, load_profile
from edgenas.errors import DeviceError, ExitCode
from edgenas.pipeline.device_setup import set_up_device
from tests.devices.conftest import SetUpBoard
from tests.fixtures.virtual_machines import board_profile
from tests.stand_ins.machine import Machine

pytestmark = [pytest.mark.slow, pytest.mark.aarch64]


def test_a_profile_is_written_without_python(installed_bare: SetUpBoard) -> None:
    """A shell is enough to say what the board is."""
    profile = load_profile(installed_bare.written)
    assert (profile.cores, profile.python, set(profile.runtimes)) == (2, None, {"onnxruntime", "litert"})


def test_python_is_brought_along(installed_bare: SetUpBoard) -> None:
    """Set-up notices by itself that there is no Python, says so, and installs this machine's versions of runtimes."""
    said, installed = installed_bare.said, installed_bare.installed
    assert said[0] == "bare-board: has no python3, so Python is brought along (--self-contained)"
    assert said[1].startswith("bare-board: putting Python 3.11, onnxruntime, litert for aarch64 together")
    assert installed.versions == {
        "onnxruntime": importlib.metadata.version("onnxruntime"),
        "litert": importlib.metadata.version("ai-edge-litert"),
    }
    assert (installed.how, installed.skipped) == ("self-contained", {})


def test_a_second_set_up_sends_nothing(ready_board: SetUpBoard) -> None:
    """What is there already is found, also without a word about Python being brought."""
    said: list[str] = []
    installed = set_up_device(ready_board.profile, say=said.append)
    assert installed.how == "self-contained, already installed"
    assert said == ["bare-board: has no python3, so Python is brought along (--self-contained)"]


def test_both_runtimes_are_measured(ready_board: SetUpBoard, conv: Path, make_relu: Callable[..., Path]) -> None:
    """edgenas measure gives a number for an ONNX and for a TFLite file; emulated time has no verdict of valid."""
    models = [conv, make_relu((1, 16))]
    command = [sys.executable, "-m", "edgenas", "measure", *map(str, models), "--device", str(ready_board.file)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode in (ExitCode.OK, ExitCode.NOT_MEASURABLE), done.stderr  # a busy machine is rejected
    found = json.loads(done.stdout)["models"]
    assert [Path(each["model"]) for each in found] == models
    assert all(each["median_ms"] > 0 and each["validity"]["status"] != "valid" for each in found)


# -- faults --------------------------------------------------------------------------


def fault_after_begun(board: SetUpBoard, fault: Callable[[], None]) -> float:
    """Run a command on the board, let something happen to it when the command has begun, and return the seconds from
    then until the error."""
    began: list[float] = []
    faults: list[Future[None]] = []

    def begin(line: str) -> None:
        began.append(time.monotonic())
        faults.append(pool.submit(fault))

    with ThreadPoolExecutor(1) as pool, connect_device(board.profile) as device:
        sleeper = [device.python, "-I", "-c", "import time; print('begun', flush=True); time.sleep(600)"]
        with pytest.raises(DeviceError, match=r"gave no sign of life for 10 s|the connection was lost"):
            device.run(sleeper, deadline=Deadline(300), on_line=begin)
        seconds = time.monotonic() - began[0]
        with pytest.raises(DeviceError):  # and stays so
            device.run(["true"], deadline=Deadline(30))
        faults[0].result()
    return seconds


def runs_again(board: SetUpBoard) -> bool:
    with connect_device(board.profile) as device, device.lock(Deadline(60)):
        return device.run([device.python, "-I", "-c", "print(7)"], deadline=Deadline(120)).stdout == "7\n"


def test_a_frozen_board_is_given_up(ready_board: SetUpBoard, bare_board: Machine) -> None:
    """A board that hangs in mid-run is an error within half a minute; when it goes on, so does the next call."""
    assert fault_after_begun(ready_board, bare_board.freeze) < 30
    bare_board.thaw()
    assert runs_again(ready_board)


def test_a_cut_link_is_given_up(ready_board: SetUpBoard, bare_board: Machine) -> None:
    """A cable that is pulled in mid-run is an error within half a minute; plugged in again, the next call works."""
    assert fault_after_begun(ready_board, bare_board.cut_link) < 30
    bare_board.mend_link()
    assert runs_again(ready_board)


def test_a_reset_board_is_given_up(ready_board: SetUpBoard, bare_board: Machine) -> None:
    """A board that resets in mid-run is an error within half a minute; what was installed is still there afterwards."""
    assert fault_after_begun(ready_board, bare_board.reset) < 30
    bare_board.wait_until_it_answers()
    assert runs_again(ready_board)


def test_a_link_cut_while_sending_leaves_what_was_there(ready_board: SetUpBoard, bare_board: Machine) -> None:
    """Set-up that cannot send all of it fails within two minutes, and the board has no half of a runtime."""
    profile = board_profile(bare_board, "bare-board", work_dir="/data/root/other")

    def cut_in_a_second() -> None:
        time.sleep(1.0)
        bare_board.cut_link()

    def cut(text: str) -> None:
        if "sending Python" in text:
            cuts.append(pool.submit(cut_in_a_second))

    started, cuts = time.monotonic(), list[Future[None]]()
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(DeviceError, match=r"gave no sign of life|the connection was lost"):
            set_up_device(profile, say=cut)
        cuts[0].result()
    assert time.monotonic() - started < 120
    bare_board.mend_link()
    with connect_device(ready_board.profile) as device:
        there = device.run(["ls", "/data/root/other"], deadline=Deadline(60)).stdout.split()
    assert "venv" not in there
