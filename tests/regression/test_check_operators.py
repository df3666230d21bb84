"""What a check says of operators: which make a model slower, and which left their provider."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edgenas.devices import DeviceProfile, Target
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import DeviceError, ExitCode, ModelError
from edgenas.on_device import runtime_litert
from edgenas.profilers import Measurement, MeasureSettings, Operator, OperatorProfile
from edgenas.regression import Baseline, ModelCheck, check_model, record_baseline
from edgenas.regression.check_operators import with_operators
from edgenas.regression.limits import Limit
from edgenas.regression.model import ModelFacts
from edgenas.regression.outcome import Finding, Outcome

Make = Callable[..., tuple[Measurement, ...]]
MakeNet = Callable[[str, int], Path]
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
MODEL = Path("new.onnx")
SHORT = MeasureSettings(min_runs=2, min_seconds=0.01, max_seconds=0.02, warmup_seconds=0.01)


class Device:
    """Lists operators that are made up, by file; or fails. Remembers what it was asked for."""

    def __init__(self, error: Exception | None = None, **providers: Sequence[str]) -> None:
        self.error, self.providers = error, providers
        self.asked: list[tuple[list[str], int]] = []

    def profile(self, models: Sequence[Path], processes: int) -> list[OperatorProfile]:
        self.asked.append(([model.stem for model in models], processes))
        if self.error is not None:
            raise self.error
        return [made_up_profile(self.providers[model.stem], processes) for model in models]


def made_up_operators(providers: Sequence[str], processes: int) -> tuple[Operator, ...]:
    return tuple(
        Operator(f"Conv{number}", "Conv", provider, (10.0,) * processes) for number, provider in enumerate(providers)
    )


def made_up_profile(providers: Sequence[str], processes: int) -> OperatorProfile:
    target = {"runtime": "onnxruntime", "providers": [CUDA, CPU]}
    return OperatorProfile("m.onnx", "0" * 64, target, {}, made_up_operators(providers, processes), synthetic=True)


@pytest.fixture
def make_baseline(make: Make) -> Callable[..., Baseline]:
    """Make the baseline of a model whose operators ran on these providers."""

    def made(*providers: str) -> Baseline:
        one = make([1.0])[0]
        target = {**one.target, "providers": [CUDA, CPU]}
        return Baseline((replace(one, target=target),) * 6, operators=made_up_operators(providers, 0))

    return made


def made_up_check(outcome: Outcome, ratio: float = 1.0, kept: str = "") -> ModelCheck:
    """A check that found this ratio at +5%."""
    of_limit: Outcome = "regressed" if ratio > 1.05 else "ok"
    finding = Finding(Limit.parse("latency", "+5%"), of_limit, ratio, 1.0, ratio, (ratio, ratio), 0.0)
    reasons = () if outcome == "ok" else ("what the limits say",)
    return ModelCheck(outcome, ModelFacts("new.onnx", 1), "board", "side by side", (finding,), reasons, kept=kept)


# -- placement ----------------------------------------------------------------------------


def test_an_operator_that_left_its_provider_is_a_regression(make_baseline: Callable[..., Baseline]) -> None:
    """Also where all limits are kept: the reason names it and both providers, the limits stay ok."""
    device = Device(new=[CUDA, CPU])
    got = with_operators(made_up_check("ok"), MODEL, make_baseline(CUDA, CUDA), device.profile)
    assert (got.outcome, got.exit_code) == ("regressed", ExitCode.REGRESSED)
    assert got.reasons == (f"placement: 1 operator left their provider (Conv1: {CUDA} -> {CPU})",)
    assert [finding.outcome for finding in got.findings] == ["ok"]
    assert device.asked == [(["new"], 1)]


def test_a_long_list_of_operators_is_cut(make_baseline: Callable[..., Baseline]) -> None:
    """Three are named; the document has all."""
    device = Device(new=[CPU] * 5)
    got = with_operators(made_up_check("ok"), MODEL, make_baseline(*[CUDA] * 5), device.profile)
    assert got.reasons[0].endswith(f"Conv2: {CUDA} -> {CPU}, 2 more)")
    assert len(json.loads(json.dumps(got.to_dict()))["placement"]["left"]) == 5


def test_operators_that_stayed_are_ok(make_baseline: Callable[..., Baseline]) -> None:
    """Where they ran is part of the result."""
    got = with_operators(made_up_check("ok"), MODEL, make_baseline(CUDA, CPU), Device(new=[CUDA, CPU]).profile)
    assert got.outcome == "ok"
    assert got.placement is not None
    assert got.placement.after == {CUDA: 1, CPU: 1}


def test_placement_decides_where_the_limits_cannot_be_told(make_baseline: Callable[..., Baseline]) -> None:
    """It is known exactly; what the limits said stays as a note."""
    device = Device(new=[CPU])
    got = with_operators(made_up_check("not measurable"), MODEL, make_baseline(CUDA), device.profile)
    assert got.outcome == "regressed"
    assert got.warnings == ("what the limits say",)


def test_a_model_that_ran_on_the_cpu_alone_is_not_asked(make_baseline: Callable[..., Baseline]) -> None:
    """The CPU is the last place: nothing can leave it, and no process is spent."""
    device = Device(new=[CPU])
    got = with_operators(made_up_check("ok"), MODEL, make_baseline(CPU), device.profile)
    assert (got.outcome, got.placement, device.asked) == ("ok", None, [])


def test_a_baseline_that_does_not_say_is_noted(make_baseline: Callable[..., Baseline]) -> None:
    """An earlier edgenas recorded it: the check goes on without."""
    baseline = replace(make_baseline(CUDA), operators=None)
    got = with_operators(made_up_check("ok"), MODEL, baseline, Device().profile)
    assert got.outcome == "ok"
    assert got.warnings[0].endswith("so that was not compared; record it again")


def test_an_unknown_placement_is_not_ok(make_baseline: Callable[..., Baseline]) -> None:
    """What was demanded and cannot be told is not measurable, and says why."""
    device = Device(DeviceError("board: is gone"))
    got = with_operators(made_up_check("ok"), MODEL, make_baseline(CUDA), device.profile)
    assert (got.outcome, got.exit_code) == ("not measurable", ExitCode.NOT_MEASURABLE)
    assert got.reasons == ("where the operators ran is not known: board: is gone",)


# -- blame --------------------------------------------------------------------------------


def test_a_slower_model_is_profiled_beside_the_baselines(make_baseline: Callable[..., Baseline]) -> None:
    """Six processes of each, which also tell the placement: the device is asked once."""
    device = Device(old=[CUDA], new=[CUDA, CPU])
    got = with_operators(made_up_check("regressed", 1.5, kept="old.onnx"), MODEL, make_baseline(CUDA), device.profile)
    assert device.asked == [(["old", "new"], 6)]
    assert got.operators is not None
    assert got.operators.difference_us == 10.0
    assert [change.part for change in got.operators.changes if change.changes] == [1.0]
    assert [reason.split(":")[0] for reason in got.reasons] == ["what the limits say", "placement"]


def test_a_larger_model_that_is_not_slower_is_not_profiled(make_baseline: Callable[..., Baseline]) -> None:
    """Its size or memory regressed: operators cannot say why."""
    device = Device()
    got = with_operators(made_up_check("regressed", kept="old.onnx"), MODEL, make_baseline(CPU), device.profile)
    assert (got.operators, device.asked) == (None, [])


@pytest.mark.parametrize("error", [ModelError("new.onnx: lists no operators"), DeviceError("board: is gone")])
def test_a_profiler_that_fails_changes_no_outcome(make_baseline: Callable[..., Baseline], error: Exception) -> None:
    """The model is slower all the same; a note says why nobody knows where."""
    check = made_up_check("regressed", 1.5, kept="old.onnx")
    got = with_operators(check, MODEL, make_baseline(CPU), Device(error).profile)
    assert (got.outcome, got.reasons) == ("regressed", check.reasons)
    assert got.warnings == (f"the operators could not be listed: {error}",)


# -- real runtimes ------------------------------------------------------------------------


@pytest.fixture
def litert(target: Target) -> DeviceProfile:
    """LiteRT on this machine."""
    return profile_from_dict({**target.profile.to_dict(), "default": {"runtime": "litert"}}, "test")


@pytest.fixture
def make_chain(tmp_path: Path) -> Callable[..., Path]:
    """Make a .tflite file of operators without options, one after the other."""

    def make(name: str, *kinds: str) -> Path:
        import flatbuffers

        schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
        model = schema.ModelT.InitFromPackedBuf(runtime_litert.EMPTY, 0)
        graph, codes = model.subgraphs[0], [getattr(schema.BuiltinOperator, kind) for kind in kinds]
        names = ["in", *(f"map{number}" for number in range(1, len(kinds))), "out"]
        graph.tensors = [schema.TensorT() for _ in names]
        for tensor, of in zip(graph.tensors, names, strict=True):
            tensor.name, tensor.shape, tensor.buffer = of.encode(), [1, 65536], 0
        model.operatorCodes = [schema.OperatorCodeT() for _ in codes]
        for code, number in zip(model.operatorCodes, codes, strict=True):
            code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 1
        graph.operators = [schema.OperatorT() for _ in codes]
        for place, operator in enumerate(graph.operators):
            operator.opcodeIndex, operator.inputs, operator.outputs = place, [place], [place + 1]
        graph.inputs, graph.outputs = [0], [len(kinds)]
        builder = flatbuffers.Builder(256)
        builder.Finish(model.Pack(builder), b"TFL3")
        (tmp_path / name).write_bytes(bytes(builder.Output()))
        return tmp_path / name

    return make


@pytest.mark.usefixtures("no_conditions")
def test_onnxruntime_says_which_operators_were_added(make_net: MakeNet, target: Target, tmp_path: Path) -> None:
    """Twelve convolutions in place of three: nine were added, and they explain most of the difference."""
    record_baseline(make_net("old.onnx", 3), target, tmp_path / "b.json", settings=SHORT)
    got = check_model(make_net("new.onnx", 12), target, tmp_path / "b.json", latency="+50%", settings=SHORT)
    assert got.outcome == "regressed"
    assert got.operators is not None
    added = [change for change in got.operators.changes if "added" in change.changes and change.operator.sources]
    assert len(added) == 9
    assert sum(change.part or 0.0 for change in added) > 0.5
    assert len(got.operators.after.operators[0].times_us) == 6


@pytest.mark.usefixtures("no_conditions")
def test_litert_says_which_operators_were_added_without_times(
    make_chain: Callable[..., Path], litert: DeviceProfile, tmp_path: Path
) -> None:
    """Its Python interface has no profiler."""
    record_baseline(make_chain("old.tflite", "RELU", "TANH"), litert, tmp_path / "b.json", settings=SHORT)
    slow = make_chain("new.tflite", "RELU", *["TANH"] * 8)
    got = check_model(slow, litert, tmp_path / "b.json", latency="+50%", settings=SHORT)
    assert got.outcome == "regressed"
    assert got.operators is not None
    assert [change.operator.type for change in got.operators.changes if change.changes == ("added",)] == ["TANH"] * 7
    assert got.operators.difference_us is None


@pytest.mark.usefixtures("no_conditions")
def test_litert_says_which_operator_left_the_delegate(
    make_chain: Callable[..., Path], litert: DeviceProfile, tmp_path: Path
) -> None:
    """XNNPACK has no RELU_0_TO_1, so a kernel of the library runs it; no limit is broken, and it regressed."""
    record_baseline(make_chain("old.tflite", "TANH", "RELU6", "TANH"), litert, tmp_path / "b.json", settings=SHORT)
    model = make_chain("new.tflite", "TANH", "RELU_0_TO_1", "TANH")
    got = check_model(model, litert, tmp_path / "b.json", latency="+10000%", settings=SHORT)
    assert (got.outcome, got.exit_code) == ("regressed", ExitCode.REGRESSED)
    assert got.reasons == (f"placement: 1 operator left their provider (map2: XNNPACK -> {CPU})",)
    assert got.placement is not None
    assert (got.placement.before, got.placement.after) == ({"XNNPACK": 3}, {"XNNPACK": 2, CPU: 1})


@pytest.mark.usefixtures("no_conditions")
def test_an_unchanged_litert_model_stays_in_its_place(
    make_chain: Callable[..., Path], litert: DeviceProfile, tmp_path: Path
) -> None:
    """Also without the copy of the model: the baseline knows where its operators ran."""
    model = make_chain("old.tflite", "TANH", "RELU6", "TANH")
    baseline = record_baseline(model, litert, tmp_path / "b.json", settings=SHORT)
    (tmp_path / str(baseline.kept)).unlink()
    got = check_model(model, litert, tmp_path / "b.json", latency="+10000%", settings=SHORT)
    assert got.method == "stored samples"
    assert got.placement is not None
    assert not got.placement.is_regression
