"""``edgenas regress compare``: what it prints, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgenas.cli.regress_compare import print_operators
from edgenas.profilers import Operator, OperatorProfile
from edgenas.regression import compare_operators

Call = Callable[..., tuple[int, str, str]]
FAKE = """
name: {name}
connection: {{kind: fake}}
runtimes: {{onnxruntime: {{}}}}
default: {{runtime: onnxruntime}}
"""


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The profile of a device that makes its answers up: a model's time grows with the size of its file."""
    (tmp_path / "board.yaml").write_text(FAKE.format(name="board"))
    (tmp_path / "second.yaml").write_text(FAKE.format(name="second"))
    for name, size in (("old.onnx", 320_000), ("new.onnx", 480_000)):
        (tmp_path / name).write_bytes(bytes(size))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "board.yaml"


def test_two_models_are_printed_side_by_side(board: Path, call: Call) -> None:
    """What each takes, the ratio, the operator that explains it all, and where it ran; marked as made up."""
    code, out, err = call("regress", "compare", "old.onnx", "new.onnx", "--device", board)
    assert (code, "measure done" in err, "operators done" in err) == (0, True, True)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "board-onnxruntime-fp32-1t SYNTHETIC"
    assert "old.onnx 0.321 ms 0.319 ms to 0.324 ms 6 unverified" in lines
    assert any(line.startswith("new.onnx: takes 1.49") and line.endswith("a process of each in turn") for line in lines)
    assert "operators by onnxruntime fake" in lines
    assert "fake Fake slower 320.0 480.0 +160.0 100%" in lines
    assert "the operators take 160.0 us more (+50.0%), at 95% from 160.0 to 160.0 us" in lines
    assert "placement: no operator moved: before CPUExecutionProvider (1), after CPUExecutionProvider (1)" in lines


def test_one_model_on_two_devices(board: Path, call: Call) -> None:
    """The sides are called as their devices, with the version of the runtime on each."""
    code, out, _ = call("regress", "compare", "old.onnx", "--device", board, "--device", board.with_name("second.yaml"))
    assert code == 0
    assert "second (onnxruntime fake): takes 1.000 times as long" in out
    assert "one after the other" in out
    assert "no operator is to blame" in out


def test_json_is_one_document(board: Path, call: Call) -> None:
    """It has the measurements of both, and every operator."""
    code, out, _ = call("regress", "compare", "old.onnx", "new.onnx", "--device", board, "--json")
    document = json.loads(out)
    assert code == 0
    assert (document["side_by_side"], len(document["before"]["measurements"])) == (True, 6)
    assert document["operators"]["operators"][0]["part"] == 1.0
    assert document["operators"]["placement"]["is_regression"] is False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["old.onnx"], "two models and one device, or one model and two devices, but got 1 and 1"),
        (["old.onnx", "old.onnx"], "old.onnx: is given twice"),
        (["old.onnx", "gone.onnx"], "gone.onnx: cannot be read"),
        (["old.onnx", "new.onnx", "--shape", "x"], "--shape must be like image=1x3x224x224"),
        (["old.onnx", "new.onnx", "--device", "nowhere"], "nowhere"),
    ],
)
def test_wrong_use_is_one_line(board: Path, call: Call, arguments: list[str], said: str) -> None:
    """Exit code 2, nothing on standard output."""
    device = [] if "--device" in arguments else ["--device", board]
    code, out, err = call("regress", "compare", *arguments, *device)
    assert (code, out) == (2, "")
    assert err.startswith("edgenas: ")
    assert said in err
    assert err.count("\n") == 1


# -- operators -----------------------------------------------------------------------

PROFILE = OperatorProfile(
    "m.onnx",
    "0" * 64,
    {"runtime": "onnxruntime", "providers": ["CUDAExecutionProvider"]},
    {"onnxruntime": "1.20"},
    tuple(
        Operator(f"conv{size}", "Conv", "CUDAExecutionProvider", (10.0,) * 6, ((1, size),), ((1, size),), (f"c{size}",))
        for size in range(30)
    ),
)


def test_operators_that_did_not_change_are_counted_only(capsys: pytest.CaptureFixture[str]) -> None:
    """What changed is listed: provider, fusion, shapes and time, each with what it was."""
    changed = replace(
        PROFILE.operators[3],
        provider="CPUExecutionProvider",
        times_us=(90.0,) * 6,
        output_shapes=((1, 3), (2, 4)),
        sources=("c3", "r3"),
    )
    operators = (*PROFILE.operators[:3], changed, *PROFILE.operators[4:])
    print_operators(compare_operators(PROFILE, replace(PROFILE, operators=operators)))
    out = capsys.readouterr().out
    (row,) = [" ".join(line.split()) for line in out.splitlines() if line.startswith("c3")]
    assert row == (
        "c3 + r3 Conv provider: CUDAExecutionProvider -> CPUExecutionProvider, fusion: was c3,"
        " shapes: 1x3 -> 1x3 2x4, slower 10.0 90.0 +80.0 100%"
    )
    assert "and 29 more, together +0.0 us; --json has all" in out


def test_shapes_of_weights_are_named_where_the_outputs_are_equal(capsys: pytest.CaptureFixture[str]) -> None:
    """A wider kernel changes neither input nor output."""
    before, after = (
        replace(PROFILE, operators=(Operator("a", "Conv", "CPU", (1.0,) * 6, ((1, 8), (8, 8, size, size)), ((1, 8),)),))
        for size in (3, 7)
    )
    print_operators(compare_operators(before, after))
    assert "shapes: 8x8x3x3 -> 8x8x7x7" in capsys.readouterr().out


def test_without_a_change_the_longest_list_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """Of thirty equal operators twenty are shown."""
    print_operators(compare_operators(PROFILE, PROFILE))
    out = capsys.readouterr().out
    assert sum(line.startswith("c") for line in out.splitlines()) == 20
    assert "and 10 more" in out
    assert "no operator is to blame" in out


def test_without_times_there_are_no_columns_for_them(capsys: pytest.CaptureFixture[str]) -> None:
    """A runtime without a profiler shows what was added and where operators ran."""
    silent = replace(PROFILE, operators=tuple(replace(each, times_us=()) for each in PROFILE.operators))
    longer = replace(silent, operators=(*silent.operators, Operator("new\x1b[2J", "Gemm", "CUDAExecutionProvider")))
    print_operators(compare_operators(silent, longer))
    out = capsys.readouterr().out
    assert "us" not in out.splitlines()[1].split()
    assert "\x1b" not in out
    assert any(" ".join(line.split()) == "new [2J Gemm added" for line in out.splitlines())
    assert "onnxruntime 1.20 tells no times of operators" in out
