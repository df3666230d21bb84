"""Which nodes of a file became one operator."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgenas.graph.fusion import find_sources

Node = tuple[str, str, list[str], list[str]]


def graph(*nodes: Node, inputs: tuple[str, ...] = ("x",), outputs: tuple[str, ...] = ("y",)) -> bytes:
    """A model of nodes, each a name, a type, inputs and outputs; values that begin with w are stored."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in (*inputs, *outputs)]
    stored = sorted({value for _, _, read, _ in nodes for value in read if value.startswith("w")})
    weights = [numpy_helper.from_array(np.ones(1, np.float32), name) for name in stored]
    made = [helper.make_node(kind, read, written, name=name) for name, kind, read, written in nodes]
    proto = helper.make_graph(made, "g", values[: len(inputs)], values[len(inputs) :], weights)
    return bytes(helper.make_model(proto).SerializeToString())


CONV: Node = ("conv", "Conv", ["x", "w"], ["c"])
RELU: Node = ("relu", "Relu", ["c"], ["y"])


def test_an_operator_that_kept_its_output_computes_what_leads_to_it() -> None:
    """Convolution and activation became one operator, whatever it is called."""
    ran = graph(("fused 1", "FusedConv", ["x", "w"], ["y"]))
    assert find_sources(graph(CONV, RELU), ran) == {"fused 1": ("conv", "relu")}


def test_operators_that_stayed_compute_themselves() -> None:
    """Nothing was fused."""
    assert find_sources(graph(CONV, RELU), graph(CONV, RELU)) == {"conv": ("conv",), "relu": ("relu",)}


def test_an_operator_in_the_blocked_layout_takes_in_what_vanished_behind_it() -> None:
    """It is called after the convolution's output, its own output has a new name, and the activation is gone."""
    pool: Node = ("pool", "MaxPool", ["r"], ["y"])
    ran = graph(("c_nchwc", "Conv", ["x", "w"], ["reorder_1"]), ("pool", "MaxPool", ["reorder_1"], ["y"]))
    source = graph(CONV, ("relu", "Relu", ["c"], ["r"]), pool)
    assert find_sources(source, ran) == {"c_nchwc": ("conv", "relu"), "pool": ("pool",)}


def test_a_convolution_that_vanished_is_not_taken_in_by_the_one_before() -> None:
    """Convolutions are computed by operators of their own; the second is called after its activation."""
    second: Node = ("conv2", "Conv", ["c", "w"], ["d"])
    source = graph(CONV, second, ("relu", "Relu", ["d"], ["r"]), ("pool", "MaxPool", ["r"], ["y"]))
    ran = graph(
        ("c_nchwc", "Conv", ["x", "w"], ["reorder_1"]),
        ("r_nchwc", "Conv", ["reorder_1", "w"], ["reorder_2"]),
        ("pool", "MaxPool", ["reorder_2"], ["y"]),
    )
    assert find_sources(source, ran) == {"c_nchwc": ("conv",), "r_nchwc": ("conv2", "relu"), "pool": ("pool",)}


def test_a_sum_is_taken_in_with_its_second_input() -> None:
    """The convolution of a residual block adds its input; the change of layout behind it tells what it computes."""
    one: Node = ("one", "Relu", ["x"], ["a"])
    source = graph(one, ("conv", "Conv", ["a", "w"], ["c"]), ("sum", "Add", ["c", "a"], ["y"]))
    ran = graph(
        one,
        ("ReorderInput", "ReorderInput", ["a"], ["reorder_1"]),
        ("c_nchwc", "Conv", ["reorder_1", "w", "", "reorder_1"], ["reorder_2"]),
        ("ReorderOutput", "ReorderOutput", ["reorder_2"], ["y"]),
    )
    assert find_sources(source, ran) == {"one": ("one",), "c_nchwc": ("conv", "sum")}


def test_what_is_not_certain_is_left_out() -> None:
    """An operator whose input is of no known name may compute more, or less, than what leads to its output."""
    ran = graph(("new", "Reshape", ["x", "w"], ["unknown"]), ("relu", "Relu", ["unknown"], ["y"]))
    assert find_sources(graph(CONV, RELU), ran) == {}


def test_constants_are_no_inputs() -> None:
    """What depends on stored values alone was computed before."""
    source = graph(("weights", "Neg", ["w"], ["v"]), ("conv", "Conv", ["x", "v"], ["y"]))
    assert find_sources(source, graph(("conv", "Conv", ["x", "w9"], ["y"]))) == {"conv": ("conv",)}


def test_a_node_without_a_name_is_called_as_its_output() -> None:
    """Names of nodes are optional in ONNX."""
    assert find_sources(graph(("", "Relu", ["x"], ["y"])), graph(("r", "Relu", ["x"], ["y"]))) == {"r": ("y",)}


@given(st.binary(max_size=60))
def test_a_damaged_graph_tells_nothing(data: bytes) -> None:
    """What a device stored may be anything."""
    assert isinstance(find_sources(graph(CONV, RELU), data), dict)
    assert isinstance(find_sources(data, graph(CONV, RELU)), dict)


VALUES = st.sampled_from(["x", "y", "a", "b", "w", ""])
NODES = st.lists(
    st.tuples(
        st.sampled_from(["", "n", "a_nchwc", "b_nchwc", "m"]),
        st.sampled_from(["Conv", "Relu", "ReorderInput", "ReorderOutput"]),
        st.lists(VALUES, max_size=3),
        st.lists(VALUES, max_size=2),
    ),
    max_size=6,
)


@given(NODES, NODES)
def test_graphs_that_make_no_sense_end(source: list[Any], ran: list[Any]) -> None:
    """Circles, values that are written twice and nodes without outputs are walked to an end."""
    assert isinstance(find_sources(graph(*source), graph(*ran)), dict)


def test_onnxruntime_fuses_each_node_into_one_operator(real_models: Path, tmp_path: Path) -> None:
    """Of a real network, no node is in two operators, and each convolution is in one with its activation."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model, stored = real_models / "yunet_n_320_320.onnx", tmp_path / "graph"
    for disabled in ([], ["NchwcTransformer"]):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(stored)
        onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
        )
        sources = find_sources(model.read_bytes(), stored.read_bytes())
        counts = Counter(name for names in sources.values() for name in names)
        assert set(counts.values()) == {1}
        # Changes of layout take in some Transposes, and are left out.
        assert {node.name for node in onnx.load(model).graph.node if node.op_type != "Transpose"} <= set(counts)
        assert ("Conv_0", "Relu_1") in sources.values()
