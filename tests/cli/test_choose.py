"""What ``edgenas choose`` prints, of choices that are made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgenas.costs import Budget
from edgenas.devices import Target
from edgenas.pipeline import Run
from edgenas.pipeline.choice import (
    Choice,
    Deployment,
    EvaluatedFile,
    MeasuredSubnet,
    Prediction,
    Regret,
    RejectedCandidate,
    TargetOutcome,
)
from edgenas.space import MobileNetV3

Call = Callable[..., tuple[int, str, str]]

_SPACE = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
_MIN, _MAX = _SPACE.smallest.id, _SPACE.largest.id
_PREDICTED = Prediction(0.96, 4.0, 2e6, 0.01)
_MEASURED = MeasuredSubnet(0.95, 0.94, 3.0, (2.9, 3.1), None, "unverified (no governor)", False, 4.5, (4.4, 4.7))
_BOARD = "connection: {kind: fake}\nruntimes: {onnxruntime: {}}\ndefault: {runtime: onnxruntime}\n"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let choosing find something at once; what it was asked for."""
    found: dict[str, Any] = {}

    def targets(self: Run, *names: Any) -> list[Target]:
        return [self.target(*names)]

    def choose(self: Run, budgets: dict[Target, Budget], max_drop: float, *, measure: bool) -> Choice:
        found.update(budgets=budgets, max_drop=max_drop, measure=measure)
        measured, test = (_MEASURED, 0.93) if measure else (None, None)
        deployments = tuple(
            Deployment(each.name, budget, _PREDICTED, measured, test) for each, budget in budgets.items()
        )
        names = [each.name for each in budgets]
        considered = (
            *(TargetOutcome(name, "chosen", _MIN, 0.94, True, 4.5, True) for name in names),
            TargetOutcome("slow", f"nothing fits: the fastest, {_MIN}, takes 90.0 ms"),
        )
        regret = (
            Regret(names[0], _MAX, names[-1], names[-1], 0.97, 9.0, False, None),
            Regret("", _MIN, names[0], names[0], 0.94, 4.5, True, 0.03),
        )
        evaluated = (EvaluatedFile(_MIN, "onnx-fp32", 0.96, 0.95, 0.94),)
        rejected = (RejectedCandidate(_MAX, "it was slow", names[0]),)
        return Choice(
            _SPACE.smallest, deployments, considered, evaluated, rejected, regret if len(names) > 1 else (), "digest"
        )

    monkeypatch.setattr(Run, "targets", targets)
    monkeypatch.setattr(Run, "choose", choose)
    return found


@pytest.fixture
def run(tmp_path: Path) -> list[object]:
    """The beginning of a command on a run of which only the space is known, with two boards."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\n{_BOARD}")
    return ["choose", "--run", Run(tmp_path / "run", _SPACE).folder.root]


def budgets_of(asked: dict[str, Any]) -> dict[str, Budget]:
    return {target.profile.name: budget for target, budget in asked["budgets"].items()}


def test_budgets_belong_to_the_devices_in_their_order(
    call: Call, run: list[object], tmp_path: Path, asked: dict[str, Any]
) -> None:
    """The first latency is of the first device; one memory counts for both, and so does the percentile."""
    devices = ("--device", tmp_path / "one.yaml", "--device", tmp_path / "two.yaml")
    limits = ("--latency", "5ms", "--latency", "7ms", "--memory", "9MB", "--percentile", 90)
    code, _, err = call(*run, *devices, *limits)
    assert code == 0, err
    assert budgets_of(asked) == {"one": Budget("5ms", "9MB", 90), "two": Budget("7ms", "9MB", 90)}
    assert (asked["max_drop"], asked["measure"]) == (0.01, True)


def test_everything_that_was_found_is_said(
    call: Call, run: list[object], tmp_path: Path, asked: dict[str, Any]
) -> None:
    """Median, tail, both accuracies, what was tried, each target, and regret; then a line for each file to export."""
    devices = ("--device", tmp_path / "one.yaml", "--device", tmp_path / "two.yaml")
    code, out, err = call(*run, *devices, "--latency", "5ms", "--percentile", 90)
    assert code == 0, err
    text = " ".join(out.split())
    for said in (
        f"{_SPACE.smallest} for latency 5.00 ms at percentile 90 on one-onnxruntime-fp32-1t and latency 5.00 ms",
        "predicted 96.00% ± 1.96% 4.00 ms 2.00 MB",
        "measured 94.00% 93.00% 3.00 ms 2.90 ms to 3.10 ms not measured",
        "p90 4.50 ms 4.40 ms to 4.70 ms",
        "validity on two-onnxruntime-fp32-1t: unverified (no governor)",
        "tried: 1 files run on the validation images, 1 candidates rejected before",
        f"{_MAX} on one-onnxruntime-fp32-1t: it was slow",
        f"slow nothing fits: the fastest, {_MIN}, takes 90.0 ms",
        f"one-onnxruntime-fp32-1t {_MAX} two-onnxruntime-fp32-1t two-onnxruntime-fp32-1t 97.00% 9.00 ms predicted"
        " breaks the budget",
        f"all: chosen {_MIN} one-onnxruntime-fp32-1t one-onnxruntime-fp32-1t 94.00% 4.50 ms measured 3.00 points lost",
    ):
        assert said in text
    nexts = [line for line in out.splitlines() if line.startswith("next: ")]
    assert [line.rpartition(" ")[2] for line in nexts] == [
        "ship/one-onnxruntime-fp32-1t",
        "ship/two-onnxruntime-fp32-1t",
    ]


def test_what_is_only_predicted_is_marked(call: Call, run: list[object], tmp_path: Path, asked: dict[str, Any]) -> None:
    """Title, a line of explanation, and JSON say so, and nothing is to be exported without weights."""
    given = (*run, "--device", tmp_path / "one.yaml", "--latency", "5ms", "--no-measure")
    code, out, err = call(*given)
    assert code == 0, err
    assert out.splitlines()[0].endswith("for latency 5.00 ms on one-onnxruntime-fp32-1t, PREDICTED only")
    assert "PREDICTED: nothing was evaluated or measured." in out
    assert "next:" not in out
    code, out, _ = call(*given, "--json")
    document = json.loads(out)
    assert (document["predicted_only"], document["deployments"][0]["measured"]) == (True, None)
    assert not asked["measure"]
