"""Naming a target on the command line: device, runtime, precision, threads, and repeating them in what comes next."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.costs import Budget
from edgenas.devices import Target
from edgenas.pipeline import Run
from edgenas.pipeline.choice import Choice, Deployment, MeasuredSubnet, Prediction
from edgenas.search import Front
from edgenas.space import MobileNetV3

Call = Callable[..., tuple[int, str, str]]

_SPACE = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
_BOARD = """
name: board
connection: {{kind: fake}}
runtimes: {{onnxruntime: {{}}, litert: {{}}}}
default: {{runtime: {runtime}, precision: {precision}}}
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of which nothing but the space is known."""
    return Run(tmp_path / "run", _SPACE).folder.root


def _board(folder: Path, runtime: str = "onnxruntime", precision: str = "fp32") -> Path:
    path = folder / "board.yaml"
    path.write_text(_BOARD.format(runtime=runtime, precision=precision))
    return path


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let searching and choosing find something at once."""

    def search(self: Run, targets: list[Target], seed: int, strategy: str, **options: object) -> Front:
        genes = _SPACE.encode([_SPACE.smallest])
        values = {name: np.ones(1) for name in ("accuracy", "latency_ms", "peak_bytes")}
        return Front(_SPACE, targets[0].name, genes, values, ("accuracy",), 1, "test")

    def choose(self: Run, budgets: dict[Target, Budget], max_drop: float, *, measure: bool) -> Choice:
        ((target, budget),) = budgets.items()
        proven = MeasuredSubnet(1.0, 1.0, 1.0, (0.9, 1.1), None, "valid", True)
        return Choice(_SPACE.smallest, (Deployment(target.name, budget, Prediction(1.0, 1.0, 1.0), proven),))

    def targets(self: Run, *names: Any) -> list[Target]:
        return [self.target(*names)]

    monkeypatch.setattr(Run, "search", search)
    monkeypatch.setattr(Run, "choose", choose)
    monkeypatch.setattr(Run, "targets", targets)


@pytest.mark.parametrize("command", [("search",), ("choose", "--latency", "5ms")])
def test_what_is_missing_is_made_for_the_same_target(
    call: Call, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """The remedy for a missing table or front repeats runtime, precision and threads."""
    monkeypatch.setattr("edgenas.pipeline.search.load_predictor", lambda workspace: None)
    given = ("--device", _board(tmp_path), "--runtime", "litert", "--precision", "int8", "--threads", 2)
    code, _, err = call(*command, "--run", run, *given)
    assert code == 2
    assert "board-litert-int8-2t yet" in err
    assert f"--device {tmp_path / 'board.yaml'} --runtime litert --precision int8 --threads 2\n" in err


@pytest.mark.usefixtures("no_work")
def test_search_hands_its_target_on(call: Call, run: Path, tmp_path: Path) -> None:
    """The next command of search is for the target that was searched."""
    board = _board(tmp_path)
    given = ("--device", board, "--precision", "int8", "--threads", 3)
    code, out, err = call("search", "--run", run, *given)
    assert code == 0, err
    assert f"next: edgenas choose --run {run} --device {board} --precision int8 --threads 3 --latency 1.0ms" in out


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("default", "given", "expected"),
    [
        ({}, (), ""),
        ({}, ("--precision", "int8"), " --precision int8"),
        ({}, ("--runtime", "litert"), " --runtime litert --format tflite"),
        ({}, ("--runtime", "litert", "--precision", "fp16"), " --runtime litert --precision fp16 --format tflite"),
        ({"precision": "int8"}, (), " --precision int8"),
        ({"precision": "int8"}, ("--precision", "fp32"), " --precision fp32"),
        ({"runtime": "litert", "precision": "dynamic"}, (), " --format tflite --precision dynamic"),
    ],
)
def test_choose_says_how_to_export_what_it_measured(
    call: Call, run: Path, tmp_path: Path, default: dict[str, Any], given: tuple[str, ...], expected: str
) -> None:
    """The next command of choose writes the kind of file that was measured, whatever the profile's default is."""
    board = _board(tmp_path, **default)
    code, out, err = call("choose", "--run", run, "--device", board, "--latency", "5ms", *given)
    assert code == 0, err
    assert out.endswith(f"--arch {_SPACE.smallest.id} --device {board}{expected} --out ship\n")


@pytest.mark.parametrize("command", [("search",), ("choose", "--latency", "5ms"), ("profile",)])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--precision", "int4"), "unknown precision 'int4'; did you mean 'int8'? known: fp32, fp16, dynamic, int8"),
        (("--precision", "dynamic"), "onnx has no precision 'dynamic'; it has fp32, fp16, int8"),
    ],
)
def test_a_wrong_precision_is_one_line(
    call: Call, run: Path, tmp_path: Path, command: tuple[str, ...], given: tuple[str, ...], message: str
) -> None:
    """A precision that does not exist, or not for the runtime's files, is refused with those there are."""
    code, out, err = call(*command, "--run", run, "--device", _board(tmp_path), *given)
    assert (code, out) == (2, "")
    assert err == f"edgenas: {message}\n"


def test_a_file_is_measured_as_the_precision_that_it_is_said_to_have(call: Call, tmp_path: Path) -> None:
    """measure --precision is part of the target that the numbers belong to."""
    (tmp_path / "a.onnx").write_bytes(b"m" * 1000)
    given = ("--device", _board(tmp_path), "--precision", "int8", "--json")
    code, out, err = call("measure", tmp_path / "a.onnx", *given)
    assert code == 0, err
    assert json.loads(out)["models"][0]["target"] == "board-onnxruntime-int8-1t"
