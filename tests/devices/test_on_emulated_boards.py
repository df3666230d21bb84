"""What every emulated arm64 board must do, with Python and OpenSSH of its own or with neither."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgenas.devices import Deadline, Target, connect_device
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import DeviceError
from edgenas.export import build_onnx, random_weights
from edgenas.pipeline import Run
from edgenas.pipeline.measurement_log import MeasurementLog
from edgenas.pipeline.progress import Bar, Silent
from edgenas.profilers import Measurement
from edgenas.profilers.measure.agent_run import AgentRun
from edgenas.profilers.measure.outputs import read_outputs
from edgenas.profilers.measure.protocol import Hello, Stored, send_agent
from edgenas.runtimes import SourceModel, load_runtime
from edgenas.space import MobileNetV3
from tests.devices.conftest import SetUpBoard, run_on_board
from tests.small_run import SPACE as TINY_SPACE

pytestmark = [pytest.mark.slow, pytest.mark.aarch64]

Arrays = list[npt.NDArray[Any]]
SPACE = MobileNetV3(width=0.35, resolutions=(32, 48, 64, 96), classes=10)
SUBNETS = 10
FAKE = {
    "name": "fake",
    "connection": {"kind": "fake"},
    "runtimes": {"onnxruntime": {}},
    "default": {"runtime": "onnxruntime"},
}
TINY = ("mlperf_tiny_resnet8_float", "mlperf_tiny_resnet8_int8", "mlperf_tiny_vww96_float", "mlperf_tiny_vww96_int8")
# The agent gets a control group whose limit it exceeds with the next memory that it asks for.
LIMIT_MEMORY = (
    'cd /sys/fs/cgroup; mkdir -p agent; until agent=$(pgrep -o -f "agent[.]py"); do sleep 0.1; done; '
    "echo 1 >agent/memory.oom.group; echo $agent >agent/cgroup.procs; echo 1M >agent/memory.max"
)


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


def test_onnx_outputs_are_those_of_this_machine(any_board: SetUpBoard, tmp_path: Path) -> None:
    """Subnets of up to 96 pixels give there what onnxruntime gives here, to 1e-5."""
    import onnxruntime

    models = write_subnets(tmp_path, ".onnx")
    sessions = [onnxruntime.InferenceSession(str(path)) for path in models]
    images = [make_image(session.get_inputs()[0].shape, np.float32, number) for number, session in enumerate(sessions)]
    here = [
        session.run(None, {session.get_inputs()[0].name: image})[0]
        for session, image in zip(sessions, images, strict=True)
    ]
    there = run_there(any_board, "onnxruntime", models, images, tmp_path)
    assert max(differences(here, there)) < 1e-5


def test_tflite_outputs_are_those_of_this_machine(any_board: SetUpBoard, tmp_path: Path) -> None:
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
    there = run_there(any_board, "litert", models, images, tmp_path)
    assert [found.dtype for found in there] == [expected.dtype for expected in here]
    assert max(differences(here, there)) < 1e-5
    integers = [(expected, found) for expected, found in zip(here, there, strict=True) if expected.dtype == np.int8]
    assert all(np.array_equal(expected, found) for expected, found in integers)


def reset(board: SetUpBoard) -> None:
    board.machine.reset()


def limit_memory(board: SetUpBoard) -> None:
    run_on_board(board, LIMIT_MEMORY)


class Faulty(Silent):
    """Lets something happen at the given sign of progress, and notes the time."""

    def __init__(self, fault: Callable[[], None], at: int) -> None:
        self._fault, self._left = fault, at
        self.happened = 0.0

    @contextmanager
    def step(self, name: str, total: float) -> Iterator[Bar]:
        def bar(done: float, note: str = "", /) -> None:
            self._left -= 1
            if self._left == 0:
                self._fault()
                self.happened = time.monotonic()

        yield bar


@pytest.mark.parametrize(
    ("any_board", "fault", "error"),
    [
        ("ready_board", reset, r"gave no sign of life for 10 s|the connection was lost"),
        ("ready_debian", limit_memory, r"the agent was killed by SIGKILL, .* want of memory; free memory on"),
    ],
    indirect=["any_board"],
)
def test_a_fault_in_mid_profile_costs_nothing(
    any_board: SetUpBoard, fault: Callable[[SetUpBoard], None], error: str, tmp_path: Path
) -> None:
    """A profile whose board fails ends in an error; called again it gives a table, and measures no subnet twice."""
    prior = profile_from_dict(FAKE, "fake")
    run = Run(tmp_path / "run", TINY_SPACE, progress=Silent())
    run.profile(Target(prior), 0.1)
    target, faulty = Target(any_board.profile), Faulty(lambda: fault(any_board), 5)
    with pytest.raises(DeviceError, match=error):
        Run(tmp_path / "run", progress=faulty).profile(target, 0.01, source_tables=[Target(prior).name])
    assert time.monotonic() - faulty.happened < 30
    kept = measured(run, target)
    assert 0 < len(kept) < 10
    any_board.machine.wait_until_it_answers()
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
