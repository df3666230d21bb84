"""``edgenas export``: what it writes, prints and refuses."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgenas.bundle import Bundle
from edgenas.costs import Budget
from edgenas.export import PARITY_LIMITS

Call = Callable[..., tuple[int, str, str]]


def test_every_format_and_precision_in_one_call(call: Call, trained: Path, tmp_path: Path) -> None:
    """--format and --precision are repeated; what does not exist is skipped with a line; --json lists the files."""
    flags = ("--format", "onnx", "--format", "tflite", "--precision", "fp32", "--precision", "dynamic")
    code, out, err = call("export", "--run", trained, "--arch", "min", *flags, "--out", tmp_path / "ship", "--json")
    assert code == 0
    assert "onnx has no precision dynamic, it has fp32, fp16, int8: skipped" in err
    document = json.loads(out)
    assert [each["format"] for each in document["bundles"]] == ["onnx-fp32", "tflite-fp32", "tflite-dynamic"]
    assert document["skipped"]
    for each in document["bundles"]:
        assert each["archive"] == str(tmp_path / "ship" / f"{each['format']}.zip")
        assert Path(each["model"]).is_file()
        assert each["card"]["agreement_with_pytorch"]["top1"] >= 0.98


def test_table_says_what_was_found(call: Call, trained: Path, tmp_path: Path) -> None:
    """Size, accuracy and agreement of each file, MACs and peak of activations, archives and the next command."""
    code, out, _ = call("export", "--run", trained, "--arch", "max", "--out", tmp_path / "ship")
    assert code == 0
    for words in ("test accuracy", "same class", "360 validation images of digits", "MACs", "peak at", "archives:"):
        assert words in out
    assert f"next: edgenas measure {tmp_path / 'ship' / 'onnx-fp32' / 'model.onnx'}" in out


def test_float_layers_are_named(call: Call, trained: Path, tmp_path: Path) -> None:
    """What computes in float in an int8 file is listed."""
    flags = ("--precision", "int8", "--keep-float", "classifier", "--calibration-method", "minmax")
    code, out, _ = call("export", "--run", trained, "--arch", "max", *flags, "--out", tmp_path / "ship")
    assert code == 0
    line = next(line for line in out.splitlines() if line.startswith("onnx-int8 computes in float: "))
    assert "classifier.linear" in line


def test_chosen_subnet_of_a_device(call: Call, finished: Path, tmp_path: Path) -> None:
    """--device alone exports what was chosen there, with what was measured of it."""
    code, out, _ = call("export", "--run", finished, "--device", "localhost", "--out", tmp_path / "ship", "--json")
    assert code == 0
    (exported,) = json.loads(out)["bundles"]
    choice = json.loads(next(finished.glob("targets/*/choices/*.json")).read_text())
    assert exported["card"]["architecture"] == choice["architecture"]
    assert exported["card"]["measured"]["median_ms"] == choice["deployments"][0]["measured"]["latency_ms"]


def test_several_choices_are_listed(call: Call, finished: Path, tmp_path: Path) -> None:
    """Where two budgets chose two subnets, both are listed, and --arch is asked for."""
    run = Path(shutil.copytree(finished, tmp_path / "copy"))
    _write_another_choice(next(run.glob("targets/*/choices/*.json")), run)
    code, out, err = call("export", "--run", run, "--device", "localhost", "--out", tmp_path / "ship")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "has several choices" in err
    assert "(latency 50.0 ms on localhost-onnxruntime-fp32-1t)" in err
    assert "(latency 60.0 ms on localhost-onnxruntime-fp32-1t)" in err
    assert "--arch" in err
    assert not (tmp_path / "ship").exists()


def _write_another_choice(path: Path, run: Path) -> None:
    from edgenas.pipeline import Run
    from edgenas.pipeline.choice import Choice

    space = Run(run).space
    choice = Choice.load(path, space)
    other = space.largest if choice.arch != space.largest else space.smallest
    deployments = (replace(choice.deployments[0], budget=Budget(latency="60ms")),)
    replace(choice, arch=other, deployments=deployments).save(path.with_name("latency-60ms.json"))


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        ((), "needs --device PROFILE for what was chosen there, or --arch ID, min or max"),
        (("--arch", "chosen"), "needs --device PROFILE for what was chosen there"),
        (("--device", "localhost"), "has no choice for localhost-onnxruntime-fp32-1t yet; run: edgenas choose"),
        (("--arch", "min", "--precision", "dynamic"), "onnx has no precision 'dynamic'; it has fp32, fp16, int8"),
        (("--arch", "min", "--format", "coreml"), "unknown format 'coreml'; known are onnx, tflite"),
        (("--arch", "min", "--batch", "many"), "batch must be dynamic or a whole number, but got 'many'"),
        (("--arch", "min", "--batch", "0"), "batch must be dynamic or from 1 to 1024, but got 0"),
        (("--arch", "min", "--target", "coreml"), "unknown target 'coreml'; known: tensorrt"),
        (("--arch", "min", "--target", "tensorrt"), "target tensorrt is for int8 ONNX"),
        (("--arch", "min", "--keep-float", "stem"), "keep-float has no effect on float32"),
        (("--arch", "min", "--calibration", "."), "calibration is for int8"),
        (("--arch", "min", "--calibration-method", "minmax"), "calibration-method is for int8"),
        (("--arch", "min", "--precision", "int8", "--keep-float", "stam.conv"), "stem.conv"),
        (("--arch", "min", "--precision", "int8", "--calibration-method", "mean"), "unknown calibration method 'mean'"),
        (("--arch", "min", "--precision", "int8", "--calibration", "nowhere"), "nowhere: cannot be read"),
    ],
)
def test_wrong_use(call: Call, trained: Path, tmp_path: Path, flags: tuple[str, ...], rule: str) -> None:
    """What cannot be is answered in one line with exit code 2, and nothing is written."""
    code, out, err = call("export", "--run", trained, *flags, "--out", tmp_path / "ship")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert rule in err
    assert not (tmp_path / "ship").exists()


def test_failed_check_exits_with_1(call: Call, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that loses too much is not left there; the last line names what to keep in float."""
    monkeypatch.setitem(PARITY_LIMITS, "int8", replace(PARITY_LIMITS["int8"], relative_error=1e-6))
    flags = ("--arch", "max", "--precision", "int8")
    code, out, err = call("export", "--run", trained, *flags, "--out", tmp_path / "ship")
    assert (code, out, err.count("\n")) == (1, "", 2)
    assert "edgenas: onnx-int8: logits are off by" in err
    assert "--keep-float" in err
    assert not (tmp_path / "ship").exists()


def test_failed_check_as_json(call: Call, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--json lists what was written and what failed with its reason, and the exit code is 1."""
    monkeypatch.setitem(PARITY_LIMITS, "fp16", replace(PARITY_LIMITS["fp16"], relative_error=1e-9))
    flags = ("--arch", "max", "--precision", "fp32", "--precision", "fp16", "--json")
    code, out, err = call("export", "--run", trained, *flags, "--out", tmp_path / "ship")
    document = json.loads(out)
    assert code == 1
    assert [each["format"] for each in document["bundles"]] == ["onnx-fp32"]
    assert document["failed"]["onnx-fp16"].startswith("logits are off by")
    assert "onnx-fp16: logits are off by" in err


def test_file_for_tensorrt_is_not_to_be_measured_here(call: Call, trained: Path, tmp_path: Path) -> None:
    """Integers for TensorRT are to be measured on a board that has it."""
    flags = ("--arch", "max", "--precision", "int8", "--target", "tensorrt")
    code, out, _ = call("export", "--run", trained, *flags, "--out", tmp_path / "ship")
    assert code == 0
    last = out.splitlines()[-1]
    assert last.startswith("next, on a board with TensorRT: edgenas measure ")
    assert last.endswith(" --device PROFILE")
    assert (tmp_path / "ship" / "onnx-int8-tensorrt.zip").exists()


def test_output_folder_that_is_a_file(call: Call, trained: Path, tmp_path: Path) -> None:
    """A file where the folder should be is one line, and the file stays."""
    (tmp_path / "ship").write_text("mine")
    code, out, err = call("export", "--run", trained, "--arch", "max", "--out", tmp_path / "ship")
    assert (code, out) == (2, "")
    assert err == f"edgenas: {tmp_path / 'ship'}: is a file; --out needs a folder\n"
    assert (tmp_path / "ship").read_text() == "mine"


def test_export_needs_no_second_time(call: Call, trained: Path, tmp_path: Path) -> None:
    """The same command again says that it is already done and prints the same."""
    command = ("export", "--run", trained, "--arch", "max", "--out", tmp_path / "ship")
    first = call(*command)
    second = call(*command)
    assert second[1] == first[1]
    assert "already done" in second[2]
    Bundle(tmp_path / "ship" / "onnx-fp32").verify()
