"""The demo, as a user sees it, on the real digits."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from edgenas.bundle import Bundle
from edgenas.runtimes import ExportFormat

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]

# Runs the exported file with onnxruntime alone: no edgenas, no torch, only what lies in the bundle and the run.
ALONE = """
import json, os, runpy, sys
from pathlib import Path
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np, onnxruntime
from sklearn.datasets import load_digits

model, split = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())["indices"]["test"]
preprocess = runpy.run_path(str(model.with_name("preprocess.py")))["preprocess"]
settings = json.loads(model.with_name("preprocessing.json").read_text())
digits = load_digits()
session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
right = 0
for index in split:
    image = preprocess(digits.images[index].astype(np.uint8), settings)
    right += int(session.run(None, {"input": image})[0].argmax() == digits.target[index])
assert not {"edgenas", "torch"} & set(sys.modules)
print(right / len(split))
"""


def run_demo(folder: Path) -> tuple[dict[str, Any], str]:
    command = [sys.executable, "-m", "edgenas", "demo", "--run", str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document, done.stderr


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a whole demo, and its JSON document."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    return folder, run_demo(folder)[0]


def subnet(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(row for row in document["subnets"] if row["name"] == name)
    return found


@pytest.mark.parametrize(("name", "least"), [("chosen", 0.95), ("smallest", 0.90)])
def test_accuracy(demo: tuple[Path, dict[str, Any]], name: str, least: float) -> None:
    """The chosen subnet reaches 95% of the test digits, the smallest 90%."""
    assert subnet(demo[1], name)["test_accuracy"] >= least


@pytest.mark.parametrize("name", ["smallest", "chosen", "largest"])
def test_file_alone_gives_the_stated_accuracy(demo: tuple[Path, dict[str, Any]], name: str) -> None:
    """Each file of the table, run with onnxruntime alone on the test split, gives the accuracy that it states."""
    folder, document = demo
    row = subnet(document, name)
    command = [sys.executable, "-c", ALONE, row["model"], str(folder / "data.json")]
    alone = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(alone.stdout) == row["test_accuracy"]


def test_choice_keeps_its_budget(demo: tuple[Path, dict[str, Any]]) -> None:
    """The upper end of the measured interval lies within the budget, the middle of fastest and slowest."""
    (choice,), holdout = demo[1]["choice"]["deployments"], demo[1]["holdout"]
    middle = (holdout["fastest_ms"] + holdout["slowest_ms"]) / 2
    budget_ms = float(choice["budget"]["latency"].removesuffix("ms"))
    assert budget_ms == pytest.approx(middle, rel=0.01)
    assert choice["measured"]["interval_ms"][1] <= budget_ms


def test_picture(demo: tuple[Path, dict[str, Any]]) -> None:
    """The front is drawn as a PNG."""
    assert Path(demo[1]["picture"]).read_bytes().startswith(b"\x89PNG")


def test_second_demo_does_nothing_again(demo: tuple[Path, dict[str, Any]]) -> None:
    """Run again, every step is skipped and the numbers are the same."""
    document, progress = run_demo(demo[0])
    assert document == demo[1]
    for step in ("train", "evaluate", "profile", "search", "choose", "export"):
        assert any(line.startswith(step) and "already done" in line for line in progress.splitlines()), step


def test_int8_bundle_is_left(demo: tuple[Path, dict[str, Any]]) -> None:
    """The chosen subnet lies there as int8 TFLite too; it verifies and keeps 98% of the classes."""
    bundle = Bundle(Path(demo[1]["int8"]))
    assert bundle.verify().export_format == ExportFormat("tflite", "int8")
    assert bundle.card["architecture"]["id"] == subnet(demo[1], "chosen")["architecture"]
    assert bundle.card["agreement_with_pytorch"]["top1"] >= 0.98
    assert bundle.card["float_layers"] == []


def test_int8_bundle_runs_where_only_numpy_and_litert_are(demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Its script, in a new environment with numpy and ai-edge-litert alone, prints the expected label."""
    folder = Path(demo[1]["int8"])
    label = Bundle(folder).verify().label
    environment = tmp_path / "new environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), "numpy", "ai-edge-litert"], check=True)
    absent = "import importlib.util, sys; sys.exit(any(map(importlib.util.find_spec, ['edgenas', 'torch', 'onnx'])))"
    subprocess.run([str(python), "-I", "-c", absent], check=True)
    command = [str(python), "-I", str(folder / "run.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{label}\n"
    Bundle(folder).verify()  # the script leaves no trace


def test_next_lines(demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """The lines that the demo ends with run as they are printed, where no environment is activated."""
    environment = {**os.environ, "PATH": "/usr/bin:/bin"}

    def shell(line: str) -> str:
        command = ["/bin/sh", "-c", line]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout

    lines = (
        shell(f"{shlex.quote(sys.executable)} -m edgenas demo --run {demo[0]}").partition("\nNext:\n")[2].splitlines()
    )
    assert [shlex.split(line)[1:4][-1] for line in lines[1:]] == ["measure", "choose", "export"]
    for line in lines:
        shell(line)


def test_guide_to_exporting(demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Each command of the guide works as written, in the demo's run."""
    shutil.copytree(demo[0], tmp_path / "runs" / "digits")
    for choice in (tmp_path / "runs" / "digits").glob("targets/*/choices/*.json"):
        if json.loads(choice.read_text())["architecture"]["id"] != subnet(demo[1], "chosen")["architecture"]:
            choice.unlink()  # of another test, for another budget
    guide = (ROOT / "docs" / "guides" / "export_a_model.md").read_text()
    commands = "".join(re.findall(r"```sh\n(.*?)```", guide, re.DOTALL)).replace("\\\n", " ").splitlines()
    assert len(commands) == 5
    for line in commands:
        program, *arguments = shlex.split(line)
        command = [sys.executable, *(["-m", "edgenas"] if program == "edgenas" else []), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}: {done.stderr}"
