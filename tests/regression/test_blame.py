"""Which operators make the difference between two models."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenas.devices import Target
from edgenas.errors import UsageError
from edgenas.profilers import Operator, OperatorProfile, profile_operators
from edgenas.regression import OperatorChange, OperatorComparison, compare_operators

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
MakeNet = Callable[[str, int], Path]


def operator(name: str, times: float | Sequence[float] = (), **changes: Any) -> Operator:
    """An operator that takes these microseconds in eight processes."""
    each = (float(times),) * 8 if isinstance(times, (int, float)) else tuple(map(float, times))
    made = Operator(name, name.rstrip("0123456789"), CPU, each, ((1, 8),), ((1, 8),), (name,))
    return replace(made, **changes)


def profile(*operators: Operator, synthetic: bool = False) -> OperatorProfile:
    """A profile of these operators, made up for these tests."""
    target = {"runtime": "onnxruntime", "providers": [CUDA, CPU]}
    return OperatorProfile("m.onnx", "0" * 64, target, {"onnxruntime": "1.20"}, operators, synthetic)


def change_of(comparison: OperatorComparison, name: str) -> OperatorChange:
    (change,) = [each for each in comparison.changes if each.operator.name == name]
    return change


def test_an_added_operator_is_blamed() -> None:
    """It takes 50 of the 60 us that the second model takes more; the 10 of a slower one are the other sixth."""
    before = profile(operator("Conv1", 100), operator("Relu2", 20))
    after = profile(operator("Conv1", 110), operator("Conv9", 50, output_shapes=((9, 9),)), operator("Relu2", 20))
    comparison = compare_operators(before, after)
    assert (comparison.difference_us, comparison.interval_us, comparison.differs) == (60.0, (60.0, 60.0), True)
    added, slower, same = (change_of(comparison, name) for name in ("Conv9", "Conv1", "Relu2"))
    assert (added.changes, added.difference_us) == (("added",), 50.0)
    assert (slower.changes, slower.difference_us) == (("slower",), 10.0)
    assert [added.part, slower.part] == pytest.approx([5 / 6, 1 / 6])
    assert (same.changes, same.difference_us, same.part) == ((), 0.0, 0.0)
    assert [each.operator.name for each in comparison.by_difference] == ["Conv9", "Conv1", "Relu2"]


def test_a_removed_and_a_faster_operator_work_against_it() -> None:
    """Parts add up to one, and are below zero for what became faster."""
    before = profile(operator("Conv1", 100), operator("Pool2", 10), operator("Relu3", 20))
    after = profile(operator("Conv1", 180), operator("Relu3", 10))
    comparison = compare_operators(before, after)
    changes = {each.operator.name: each.changes for each in comparison.changes}
    assert changes == {"Conv1": ("slower",), "Pool2": ("removed",), "Relu3": ("faster",)}
    assert [each.part for each in comparison.changes] == pytest.approx([80 / 60, -10 / 60, -10 / 60])


def test_what_varies_from_process_to_process_is_nobodys_fault() -> None:
    """Medians differ by 4 us, but processes by more: no operator is called slower, and none gets a part."""
    before = profile(operator("Conv1", [100, 104, 98, 101, 109, 97, 103, 100]))
    after = profile(operator("Conv1", [107, 99, 105, 104, 98, 106, 103, 108]))
    comparison = compare_operators(before, after)
    assert not comparison.differs
    (change,) = comparison.changes
    assert (change.changes, change.part) == ((), None)


def test_a_steady_difference_of_less_than_a_two_hundredth_is_not_named() -> None:
    """Of 1,000 us, 4 are a difference that the clock's whole microseconds could make."""
    before, after = (profile(operator("Conv1", 900), operator("Relu2", us)) for us in (100, 104))
    comparison = compare_operators(before, after)
    assert comparison.differs
    assert change_of(comparison, "Relu2").changes == ()
    more = compare_operators(before, profile(operator("Conv1", 900), operator("Relu2", 106)))
    assert change_of(more, "Relu2").changes == ("slower",)


def test_another_provider_is_a_change_also_when_it_is_not_slower() -> None:
    """An operator went from CUDA to the CPU and takes as long."""
    before, after = (profile(operator("Conv1", 100, provider=provider)) for provider in (CUDA, CPU))
    comparison = compare_operators(before, after)
    assert [each.changes for each in comparison.changes] == [("provider",)]
    assert comparison.placement.is_regression


def test_an_operator_that_is_no_longer_fused_is_told_from_an_added_one() -> None:
    """The activation was part of the convolution; now it is an operator of its own, and the other way round."""
    fused = profile(operator("Conv1", 100, sources=("Conv1", "Relu2")))
    apart = profile(operator("Conv1", 90), operator("Relu2", 30))
    there, back = compare_operators(fused, apart), compare_operators(apart, fused)
    assert {each.operator.name: each.changes for each in there.changes} == {
        "Conv1": ("fusion", "faster"),
        "Relu2": ("unfused",),
    }
    assert {each.operator.name: each.changes for each in back.changes} == {
        "Conv1": ("fusion", "slower"),
        "Relu2": ("fused",),
    }


def test_other_shapes_and_types_are_named() -> None:
    """A wider layer, and one that another kernel computes."""
    before = profile(operator("Conv1", 100), operator("Relu2", 10))
    after = profile(operator("Conv1", 100, output_shapes=((1, 16),)), operator("Relu2", 10, type="Clip"))
    assert [each.changes for each in compare_operators(before, after).changes] == [("shapes",), ("type",)]


def test_without_times_there_is_no_part() -> None:
    """A runtime without a profiler tells what was added and where operators ran; the text says why no more."""
    comparison = compare_operators(profile(operator("Conv1")), profile(operator("Conv1"), operator("Relu2")))
    assert (comparison.difference_us, comparison.interval_us, comparison.differs) == (None, None, False)
    assert [(each.changes, each.difference_us, each.part) for each in comparison.changes] == [
        ((), None, None),
        (("added",), None, None),
    ]
    assert str(comparison) == "onnxruntime 1.20 tells no times of operators"


def test_a_fake_device_is_not_compared_with_a_real_one() -> None:
    """What is made up explains nothing."""
    with pytest.raises(UsageError, match="a fake device and of a real one"):
        compare_operators(profile(operator("Conv1", 1), synthetic=True), profile(operator("Conv1", 1)))


def test_the_document_is_json_and_whole() -> None:
    """It holds the conditions, the sums, the placement and every operator with both sides."""
    before = profile(operator("Conv1", 100))
    comparison = compare_operators(before, profile(operator("Conv1", 120), operator("Relu2", 5)))
    document = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert (document["before"]["time_us"], document["after"]["time_us"], document["difference_us"]) == (100, 125, 25)
    assert document["placement"]["is_regression"] is False
    first, second = document["operators"]
    assert (first["before"]["name"], first["after"]["times_us"], first["part"]) == ("Conv1", [120.0] * 8, 0.8)
    assert (second["before"], second["changes"]) == (None, ["added"])


def test_an_interrupted_process_does_not_hide_a_difference() -> None:
    """In each process another operator was interrupted for a millisecond: the sums vary by that, the medians do not."""

    def interrupted(us: float) -> list[Operator]:
        times = [[us + 1000 * (process == place) for process in range(8)] for place in range(8)]
        return [operator(f"Conv{place}", each) for place, each in enumerate(times)]

    comparison = compare_operators(profile(*interrupted(100)), profile(*interrupted(110)))
    assert (comparison.difference_us, comparison.interval_us) == (80.0, (80.0, 80.0))


TIMES = st.lists(st.integers(0, 1000), min_size=6, max_size=6)
OPERATORS = st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d"]), TIMES), min_size=1, max_size=6)


@settings(max_examples=40)
@given(OPERATORS, OPERATORS)
def test_the_parts_are_the_whole(first: list[tuple[str, list[int]]], second: list[tuple[str, list[int]]]) -> None:
    """The operators' differences add up to that of the sums, and their parts to one."""
    before, after = (profile(*(operator(name, times) for name, times in side)) for side in (first, second))
    comparison = compare_operators(before, after)
    assert sum(each.difference_us or 0.0 for each in comparison.changes) == pytest.approx(comparison.difference_us)
    parts = [each.part for each in comparison.changes if each.part is not None]
    assert len(parts) == (len(comparison.changes) if comparison.differs else 0)
    if parts:
        assert sum(parts) == pytest.approx(1.0)


# -- real ones ---------------------------------------------------------------------


def with_costly_layer(model: Path, place: int, name: str = "slow.onnx") -> Path:
    """The model of ``make_net`` with a 7x7 convolution, called ``costly``, behind one of its nodes."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    proto = onnx.load(model)
    graph = proto.graph
    weights = np.random.default_rng(1).standard_normal((8, 8, 7, 7)).astype(np.float32) / 49
    graph.initializer.append(numpy_helper.from_array(weights, "costly.weights"))
    value = graph.node[place].output[0]
    graph.node[place + 1].input[0] = "costly.out"
    node = helper.make_node("Conv", [value, "costly.weights"], ["costly.out"], "costly", pads=[3, 3, 3, 3])
    graph.node.insert(place + 1, node)
    path = model.with_name(name)
    onnx.checker.check_model(proto)
    onnx.save(proto, path)
    return path


def with_other_names(model: Path) -> Path:
    """The same model, whose nodes, values and weights are all called otherwise; inputs and outputs keep their names."""
    import onnx

    proto = onnx.load(model)
    kept = {value.name for value in (*proto.graph.input, *proto.graph.output)}
    names: dict[str, str] = {}
    for number, node in enumerate(proto.graph.node):
        node.name = f"renamed{number}"
        for values in (node.input, node.output):
            values[:] = [value if value in kept else names.setdefault(value, f"v{len(names)}") for value in values]
    for tensor in proto.graph.initializer:
        tensor.name = names[tensor.name]
    path = model.with_name("renamed.onnx")
    onnx.checker.check_model(proto)
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("change_names", [False, True])
def test_a_costly_layer_is_found_in_a_real_model(make_net: MakeNet, target: Target, change_names: bool) -> None:
    """A 7x7 convolution among 3x3 ones, which costs five of them, is most of the difference; names do not matter."""
    model = make_net("net.onnx", 6)
    slow = with_costly_layer(model, 2)
    slow = with_other_names(slow) if change_names else slow
    comparison = compare_operators(*profile_operators([model, slow], target))
    assert comparison.differs
    blamed = comparison.by_difference[0]
    assert blamed.changes == ("added",)
    assert blamed.operator.sources == (("renamed3",) if change_names else ("costly",))
    assert blamed.operator.input_shapes[1][2:] == (7, 7)
    assert blamed.part is not None
    assert blamed.part > 0.6
    assert not comparison.placement.is_regression
