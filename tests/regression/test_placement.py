"""Where operators ran: which of them left their provider."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgenas.devices import Target
from edgenas.devices.profile_files import profile_from_dict
from edgenas.profilers import Operator, OperatorProfile, profile_operators
from edgenas.regression import compare_placements

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


def profile(
    placed: dict[str, str], providers: tuple[str, ...] = (TENSORRT, CUDA, CPU), **target: str
) -> OperatorProfile:
    """Operators by name, each with the provider that ran it; made up for these tests."""
    operators = tuple(Operator(name, name.rstrip("0123456789"), provider) for name, provider in placed.items())
    conditions = {"runtime": "onnxruntime", "providers": list(providers), **target}
    return OperatorProfile("m.onnx", "0" * 64, conditions, {"onnxruntime": "1.20"}, operators, synthetic=True)


def test_equal_placements_are_no_regression() -> None:
    """Nothing moved, and the text says where all ran."""
    placed = profile({"Conv1": CUDA, "Relu2": CPU})
    comparison = compare_placements(placed, placed)
    assert not comparison.is_regression
    assert (comparison.left, comparison.returned) == ((), ())
    assert str(comparison) == f"no operator moved: before {CUDA} (1), {CPU} (1), after {CUDA} (1), {CPU} (1)"


@pytest.mark.parametrize(("before", "after"), [(CUDA, CPU), (TENSORRT, CUDA), (TENSORRT, CPU)])
def test_an_operator_that_fell_back_is_a_regression(before: str, after: str) -> None:
    """It left its provider for one that the profile names later; the operator and both providers are named."""
    comparison = compare_placements(profile({"Conv1": before, "Relu2": CPU}), profile({"Conv1": after, "Relu2": CPU}))
    assert comparison.is_regression
    (moved,) = comparison.left
    assert (moved.name, moved.type, moved.before, moved.after) == ("Conv1", "Conv", before, after)
    assert "1 operator left their provider" in str(comparison)


def test_the_way_back_is_no_regression() -> None:
    """An operator that came from the CPU to the accelerator is told apart."""
    comparison = compare_placements(profile({"Conv1": CPU}), profile({"Conv1": CUDA}))
    assert not comparison.is_regression
    assert [moved.name for moved in comparison.returned] == ["Conv1"]


def test_the_cpu_is_last_also_where_the_profile_does_not_name_it() -> None:
    """onnxruntime falls back to the CPU unasked."""
    comparison = compare_placements(profile({"Conv1": CUDA}, (CUDA,)), profile({"Conv1": CPU}, (CUDA,)))
    assert comparison.is_regression


def test_a_new_operator_on_a_new_provider_is_a_regression() -> None:
    """A model that ran on the accelerator alone got an operator that does not run there."""
    old, new = profile({"Conv1": CUDA}), profile({"Conv1": CUDA, "Einsum2": CPU})
    comparison = compare_placements(old, new)
    assert [(moved.name, moved.before, moved.after) for moved in comparison.left] == [("Einsum2", None, CPU)]
    assert comparison.is_regression


def test_a_new_operator_where_others_ran_is_none() -> None:
    """The CPU ran operators before."""
    old, new = profile({"Conv1": CUDA, "Relu2": CPU}), profile({"Conv1": CUDA, "Relu2": CPU, "Einsum3": CPU})
    assert not compare_placements(old, new).is_regression


def test_removed_operators_have_left_nothing() -> None:
    """What is not run at all does not run elsewhere."""
    assert not compare_placements(profile({"Conv1": CUDA, "Relu2": CUDA}), profile({"Conv1": CUDA})).is_regression


def test_providers_of_two_runtimes_are_not_compared() -> None:
    """XNNPACK's delegate and onnxruntime's CPU provider are no better or worse places."""
    old = profile({"Conv1": "XNNPACK"}, (CPU,), runtime="litert")
    comparison = compare_placements(old, profile({"Conv1": CPU}, (CPU,)))
    assert not comparison.is_regression
    assert comparison.returned == ()


@pytest.fixture
def litert(target: Target) -> Callable[[bool], Target]:
    """LiteRT on this machine, with the delegate or without."""

    def make(xnnpack: bool) -> Target:
        options = {"litert": {"options": {CPU: {"xnnpack": xnnpack}}}}
        changes = {"runtimes": options, "default": {"runtime": "litert"}}
        return Target(profile_from_dict({**target.profile.to_dict(), **changes}, "test"))

    return make


def test_a_delegate_that_takes_no_operator_is_seen(litert: Callable[[bool], Target], data_folder: Path) -> None:
    """The same file with XNNPACK and without: all 16 operators left it."""
    pytest.importorskip("ai_edge_litert")
    model = data_folder / "models" / "mlperf_tiny_resnet8_float.tflite"
    (fast,), (slow,) = (profile_operators([model], litert(xnnpack)) for xnnpack in (True, False))
    comparison = compare_placements(fast, slow)
    assert (comparison.before, comparison.after) == ({"XNNPACK": 16}, {CPU: 16})
    assert len(comparison.left) == 16
    assert not compare_placements(slow, fast).is_regression


def test_operators_that_a_delegate_refuses_are_seen(litert: Callable[[bool], Target], data_folder: Path) -> None:
    """In int8, XNNPACK leaves the average pooling and the softmax of this network to the kernels of the library."""
    pytest.importorskip("ai_edge_litert")
    models = [data_folder / "models" / f"mlperf_tiny_resnet8_{precision}.tflite" for precision in ("float", "int8")]
    comparison = compare_placements(*profile_operators(models, litert(True)))
    assert {moved.type for moved in comparison.left} == {"AVERAGE_POOL_2D", "SOFTMAX"}
    assert comparison.after == {"XNNPACK": 14, CPU: 2}
