"""Model files of any bytes: every one is measured or refused in one line, on this machine and on the device."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgenas.devices import Target, load_profile
from edgenas.errors import EdgeNASError, ModelError
from edgenas.on_device import runtime_litert
from edgenas.profilers import Measurement, MeasureSettings, MeasuringSession
from edgenas.profilers.measure.model_files import count_file_bytes, read_model_files
from edgenas.runtimes import load_runtime

pytestmark = pytest.mark.slow

SECONDS = 15.0
FILES_ON_DEVICE = 24
MAX_BYTES = 256 << 20
BRIEF = MeasureSettings(
    processes=1, max_processes=1, min_runs=2, max_runs=5, min_seconds=0, max_seconds=0.05, warmup_runs=1,
    warmup_seconds=0, model_timeout_seconds=10,
)  # fmt: skip


def _mutate(data: bytes, generator: np.random.Generator) -> bytes:
    """Change some bytes, cut the file, repeat a piece of it, or put noise in its place."""
    kind = generator.integers(4)
    changed = np.frombuffer(data, np.uint8).copy()
    if kind == 0:
        places = generator.integers(0, len(changed), generator.integers(1, 9))
        changed[places] = generator.integers(0, 256, len(places))
    elif kind == 1:
        changed = changed[: generator.integers(1, len(changed))]
    elif kind == 2:
        begin = generator.integers(0, len(changed))
        changed = np.concatenate([changed[:begin], changed[begin : begin + 40], changed[begin:]])
    else:
        begin = generator.integers(0, len(changed))
        changed[begin : begin + 16] = generator.integers(0, 256, len(changed[begin : begin + 16]))
    return changed.tobytes()


@pytest.fixture(params=["onnx", "tflite"])
def seed(request: pytest.FixtureRequest, make_conv: Callable[..., Path], tmp_path: Path) -> Path:
    """A healthy file of each format."""
    if request.param == "onnx":
        return make_conv()
    path = tmp_path / "relu.tflite"
    path.write_bytes(runtime_litert.EMPTY)
    return path


def _target(path: Path) -> Target:
    return Target(load_profile("localhost"), "onnxruntime" if path.suffix == ".onnx" else "litert")


def _check_message(error: EdgeNASError) -> None:
    text = str(error)
    assert text.isprintable(), text
    assert len(text) < 5000


def test_any_bytes_are_read_or_refused_here(seed: Path, tmp_path: Path) -> None:
    """What reads model files before they are sent raises only errors of edgenas, and takes no memory without bound."""
    generator, data, target = np.random.default_rng(0), seed.read_bytes(), _target(seed)
    runtime = load_runtime(target.runtime)
    path = tmp_path / f"changed{seed.suffix}"
    end = time.monotonic() + SECONDS
    tracemalloc.start()
    try:
        while time.monotonic() < end:
            path.write_bytes(_mutate(data, generator))
            for read in (
                lambda: read_model_files([path], target),
                lambda: runtime.read_precision(path.read_bytes()),
                lambda: runtime.summarise_graph(path, {}),
                lambda: count_file_bytes(path),
            ):
                try:
                    read()
                except EdgeNASError as error:
                    _check_message(error)
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()


def test_any_bytes_cost_one_answer_on_the_device(seed: Path, tmp_path: Path) -> None:
    """The agent measures each file or says in one line why not, and goes on with the next."""
    generator, data, target = np.random.default_rng(1), seed.read_bytes(), _target(seed)
    paths = [tmp_path / f"{number}{seed.suffix}" for number in range(FILES_ON_DEVICE)]
    for path in paths:
        path.write_bytes(_mutate(data, generator))
    readable = []
    for path in paths:
        try:
            read_model_files([path], target)
        except EdgeNASError as error:
            _check_message(error)
        else:
            readable.append(path)
    with MeasuringSession(target) as session:
        outcomes = list(session.iter_measurements(readable, BRIEF))
    assert len(outcomes) == len(readable) > 0
    for outcome in outcomes:
        assert isinstance(outcome, Measurement | ModelError)
        if isinstance(outcome, ModelError):
            _check_message(outcome)
