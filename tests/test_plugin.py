"""The package in tests/plugin adds a space, data, a runtime, a kind of device and a strategy by entry points alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edgenas.errors import ExitCode

ROOT = Path(__file__).parents[1]
CONFIG = """\
space: {family: keywords}
data: sweeps
schedule:
  name: short
  batch_size: 48
  phases: [{name: all, epochs: 40, learning_rate: 0.1, kernel_sizes: 3, depths: 3, subnets: 2, distill: false}]
"""
BOARD = """\
name: board
connection: {kind: niced, niceness: 5}
runtimes: {numpy: {}, onnxruntime: {}}
default: {runtime: numpy}
"""
TARGET = "board-numpy-fp32-1t"

pytestmark = pytest.mark.slow


class Shell:
    """Runs ``edgenas`` in a folder, with the package installed."""

    def __init__(self, folder: Path, site: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])}

    def edgenas(self, *arguments: str) -> str:
        """Return the standard output of a command that must succeed."""
        return self.python("-m", "edgenas", *arguments)

    def python(self, *arguments: str, folder: Path | None = None) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder or self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
        )
        # A busy machine rejects what was measured, which is not for these tests to say.
        is_measured = "measure" in arguments and done.returncode == ExitCode.NOT_MEASURABLE
        assert done.returncode == 0 or is_measured, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def document(self, *arguments: str) -> Any:
        """Return what a command prints with ``--json``."""
        return json.loads(self.edgenas(*arguments, "--json"))


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A folder with a config, a device profile and a trained run, and the package installed by pip."""
    folder, site = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--target", str(site), str(ROOT / "tests" / "plugin")], check=True)
    (folder / "keywords.yaml").write_text(CONFIG)
    (folder / "board.yaml").write_text(BOARD)
    shell = Shell(folder, site)
    shell.edgenas("train", "keywords.yaml", "--run", "run")
    return shell


def test_its_supernet_learns_its_data(shell: Shell) -> None:
    """Subnets of its space, of inputs of one channel that are not square, are right more often than by chance."""
    result = shell.document("evaluate", "--run", "run", "--subnets", "12")
    assert result["accuracy"]["highest"] > 0.5  # of four classes


def test_its_runtime_is_profiled_searched_and_chosen_on_its_device(shell: Shell) -> None:
    """A latency table by its runtime and device, a front by its strategy, and a choice that keeps the budget."""
    shell.edgenas("evaluate", "--run", "run", "--subnets", "12")
    shell.edgenas("profile", "--run", "run", "--device", "board.yaml", "--minutes", "0.02")
    front = shell.document("search", "--run", "run", "--device", "board.yaml", "--strategy", "uniform")
    choice = shell.document("choose", "--run", "run", "--device", "board.yaml", "--latency", "100ms")
    assert choice["architecture"]["id"] in {row["architecture"] for row in front["front"]}
    assert (shell.folder / "run" / "targets" / TARGET / "front.json").exists()


def test_its_files_and_onnx_are_exported_and_measured(shell: Shell) -> None:
    """Bundles in its format, ONNX and TFLite are verified, give the same logits, and are measured on its device."""
    export = ["export", "--run", "run", "--arch", "max", "--out", "ship"]
    shell.edgenas(*export, "--format", "npz", "--format", "onnx", "--precision", "fp32")
    shell.edgenas(*export, "--format", "onnx", "--format", "tflite", "--precision", "fp16", "--precision", "int8")
    reduced = ("onnx-fp16", "onnx-int8", "tflite-fp16", "tflite-int8")
    bundles = [shell.folder / "ship" / name for name in ("npz-fp32", "onnx-fp32", *reduced)]
    for bundle in bundles:
        assert "intact" in shell.edgenas("verify", str(bundle))
        assert shell.python("run.py", folder=bundle).strip() in ("up", "down", "steady", "clicks")
    with np.load(bundles[0] / "sample.npz") as sample:
        assert sample["input"].shape == (1, 1, 32, 10)
        logits = onnxruntime.InferenceSession(bundles[1] / "model.onnx").run(None, {"input": sample["input"]})[0]
        np.testing.assert_allclose(logits, sample["expected"], atol=1e-4)
    results = shell.document("measure", "ship/npz-fp32/model.npz", "--device", "board.yaml")
    assert results["models"][0]["target"] == TARGET


def test_no_file_of_edgenas_knows_it() -> None:
    """Its names occur nowhere in edgenas."""
    names = ("edgenas_keywords", "sweeps", "niced", "runtime_numpy", "DepthwiseSeparable", "search_randomly")
    sources = {path: path.read_text() for path in (ROOT / "edgenas").rglob("*.py")}
    assert [(path, name) for path, text in sources.items() for name in names if name in text] == []
