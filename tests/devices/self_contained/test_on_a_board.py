"""Measuring on an emulated arm64 board without Python, through a self-contained runtime that set-up puts there."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgenas.devices import Deadline, Target, connect_device, load_profile
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import DeviceError, ExitCode
from edgenas.export import build_onnx, random_weights
from edgenas.pipeline import Run
from edgenas.pipeline.device_setup import set_up_device
from edgenas.pipeline.measurement_log import MeasurementLog
from edgenas.pipeline.progress import Bar, Silent
from edgenas.profilers import Measurement
from edgenas.profilers.measure.agent_run import AgentRun
from edgenas.profilers.measure.outputs import read_outputs
from edgenas.profilers.measure.protocol import Hello, Stored, send_agent
from edgenas.runtimes import SourceModel, load_runtime
from edgenas.space import MobileNetV3
from tests.devices.self_contained.conftest import SetUpBoard
from tests.fixtures.virtual_machines import board_profile
from tests.small_run import SPACE as TINY_SPACE
from tests.stand_ins.machine import Machine

pytestmark = [pytest.mark.slow, pytest.mark.aarch64]

Arrays = list[npt.NDArray[Any]]
SPACE = MobileNetV3(width=0.35, resolutions=(32, 48, 64, 96), classes=10)
SUBNETS = 5
FAKE = {
    "name": "fake",
    "connection": {"kind": "fake"},
    "runtimes": {"onnxruntime": {}},
    "default": {"runtime": "onnxruntime"},
}
TINY = ("mlperf_tiny_resnet8_float", "mlperf_tiny_resnet8_int8", "mlperf_tiny_vww96_float", "mlperf_tiny_vww96_int8")


def test_a_profile_is_written_without_python(installed_board: SetUpBoard) -> None:
    """A shell is enough to say what the board is."""
    profile = load_profile(installed_board.written)
    assert (profile.cores, profile.python, set(profile.runtimes)) == (2, None, {"onnxruntime", "litert"})


def test_python_is_brought_along(installed_board: SetUpBoard) -> None:
    """Set-up notices by itself that there is no Python, says so, and installs this machine's versions of runtimes."""
    said, installed = installed_board.said, installed_board.installed
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


def write_subnets(folder: Path, suffix: str) -> list[Path]:
    """Write small subnets with random weights, of all resolutions, as files of the runtime with this suffix."""
    runtime = load_runtime({".onnx": "onnxruntime", ".tflite": "litert"}[suffix])
    architectures = [SPACE.smallest, *SPACE.decode(SPACE.sample_distinct(SUBNETS - 1, np.random.default_rng(0)))]
    paths = []
    for number, architecture in enumerate(architectures):
        onnx = SourceModel(build_onnx(architecture, random_weights(architecture)))
        paths.append(folder / f"subnet{number}{suffix}")
        paths[-1].write_bytes(runtime.make_float_file(onnx))
    return paths


def run_there(board: SetUpBoard, runtime: str, models: Sequence[Path], images: Sequence[Any], folder: Path) -> Arrays:
    """The first output of each model for its image, from one run of the agent on the board."""
    target = Target(board.profile, runtime=runtime)
    with connect_device(board.profile) as device, device.lock(Deadline(60)):
        command = send_agent(device, load_runtime(runtime))
        asked = []
        for number, (model, image) in enumerate(zip(models, images, strict=True)):
            np.savez(folder / f"in{number}.npz", image)
            inputs = device.push(folder / f"in{number}.npz", f"in{number}.npz")
            path = device.push(model, f"model{number}{model.suffix}")
            asked.append({"id": number, "path": path, "inputs": inputs, "outputs": f"out{number}.npz"})
        hello, *answers = AgentRun(device, target, command, asked, 120.0, Stored, {"mode": "outputs"}).iter_answers()
        assert isinstance(hello, Hello)
        outputs = []
        for number, answer in enumerate(answers):
            assert isinstance(answer, Stored), answer
            device.pull(f"out{number}.npz", folder / f"out{number}.npz")
            outputs.append(read_outputs(folder / f"out{number}.npz", answer.outputs, "board")[0])
        return outputs


def differences(here: Arrays, there: Arrays) -> list[float]:
    """Return for each model the largest difference of an output, as a fraction of the largest output."""
    return [
        float(np.abs(expected.astype(float) - found).max() / np.abs(expected.astype(float)).max())
        for expected, found in zip(here, there, strict=True)
    ]


def make_image(shape: Sequence[int], kind: Any, seed: int) -> npt.NDArray[Any]:
    rng = np.random.default_rng(seed)
    if np.issubdtype(kind, np.integer):
        return rng.integers(-128, 128, shape).astype(kind)
    return rng.standard_normal(shape).astype(kind)


def test_onnx_outputs_are_those_of_this_machine(ready_board: SetUpBoard, tmp_path: Path) -> None:
    """Subnets of up to 96 pixels give there what onnxruntime gives here, to 1e-5."""
    import onnxruntime

    models = write_subnets(tmp_path, ".onnx")
    sessions = [onnxruntime.InferenceSession(str(path)) for path in models]
    images = [make_image(session.get_inputs()[0].shape, np.float32, number) for number, session in enumerate(sessions)]
    here = [
        session.run(None, {session.get_inputs()[0].name: image})[0]
        for session, image in zip(sessions, images, strict=True)
    ]
    there = run_there(ready_board, "onnxruntime", models, images, tmp_path)
    assert max(differences(here, there)) < 1e-5


def test_tflite_outputs_are_those_of_this_machine(ready_board: SetUpBoard, tmp_path: Path) -> None:
    """Subnets and, where they are at hand, MLPerf Tiny's models give there what LiteRT gives here, to 1e-5.

    Integers are equal.
    """
    from ai_edge_litert.interpreter import Interpreter

    models = write_subnets(tmp_path, ".tflite")
    if folder := os.environ.get("EDGENAS_DATA"):
        models += [Path(folder) / f"models/{name}.tflite" for name in TINY]
    images, here = [], []
    for number, path in enumerate(models):
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
        entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        images.append(make_image(entry["shape"], entry["dtype"], number))
        interpreter.set_tensor(entry["index"], images[-1])
        interpreter.invoke()
        here.append(interpreter.get_tensor(result["index"]))
    there = run_there(ready_board, "litert", models, images, tmp_path)
    assert [found.dtype for found in there] == [expected.dtype for expected in here]
    assert max(differences(here, there)) < 1e-5
    integers = [(expected, found) for expected, found in zip(here, there, strict=True) if expected.dtype == np.int8]
    assert all(np.array_equal(expected, found) for expected, found in integers)


def test_both_runtimes_are_measured(ready_board: SetUpBoard, conv: Path, make_relu: Callable[..., Path]) -> None:
    """edgenas measure gives a number for an ONNX and for a TFLite file; emulated time has no verdict of valid."""
    models = [conv, make_relu((1, 16))]
    command = [sys.executable, "-m", "edgenas", "measure", *map(str, models), "--device", str(ready_board.file)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode in (ExitCode.OK, ExitCode.NOT_MEASURABLE), done.stderr  # a busy machine is rejected
    found = json.loads(done.stdout)["models"]
    assert [Path(each["model"]) for each in found] == models
    assert all(each["median_ms"] > 0 and each["validity"]["status"] != "valid" for each in found)


class Resetting(Silent):
    """Resets a board at the given sign of progress."""

    def __init__(self, board: Machine, at: int) -> None:
        self._board, self._left = board, at

    @contextmanager
    def step(self, name: str, total: float) -> Iterator[Bar]:
        def bar(done: float, note: str = "", /) -> None:
            self._left -= 1
            if self._left == 0:
                self._board.reset()

        yield bar


def test_a_reset_in_mid_profile_costs_nothing(ready_board: SetUpBoard, bare_board: Machine, tmp_path: Path) -> None:
    """A profile whose board resets ends in an error; called again it gives a table, and measures no subnet twice."""
    prior = profile_from_dict(FAKE, "fake")
    run = Run(tmp_path / "run", TINY_SPACE, progress=Silent())
    run.profile(Target(prior), 0.1)
    target = Target(ready_board.profile)
    with pytest.raises(DeviceError, match=r"gave no sign of life for 10 s|the connection was lost"):
        Run(tmp_path / "run", progress=Resetting(bare_board, 5)).profile(
            target, 0.01, source_tables=[Target(prior).name]
        )
    kept = measured(run, target)
    assert 0 < len(kept) < 10
    bare_board.wait_until_it_answers()
    table = Run(tmp_path / "run", progress=Silent()).profile(target, 0.01, source_tables=[Target(prior).name])
    after = measured(run, target)
    assert after[: len(kept)] == kept
    assert table.holdout is not None
    assert table.holdout.fitted + table.holdout.held_out == 10
    accepted = [each for each in after if not each.is_rejected]
    assert len({each.model_sha256 for each in accepted}) == len(accepted) == 10
    assert all(each.validity.status == "unverified" for each in accepted)


def measured(run: Run, target: Target) -> list[Measurement]:
    entries = MeasurementLog(run.folder.measurements(target.name)).entries
    return [Measurement.from_dict(json.loads(entry.content)["measurement"]) for entry in entries]


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
    profile = board_profile(bare_board, work_dir="/data/root/other")

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
