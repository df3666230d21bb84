"""Operators, MACs and peak memory against numbers counted by hand and against the search space's formulas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper
from onnx.helper import make_node

from edgenas.export import build_onnx, random_weights
from edgenas.graph import GraphSummary, summarise_model
from edgenas.space import Architecture, MobileNetV3, Stage

MakeModel = Callable[..., bytes]
_SMALL = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
_FULL = MobileNetV3(width=1.0, resolutions=(224,))
_OWN = MobileNetV3(
    width=0.5,
    resolutions=(7, 12),
    classes=4,
    stem_stride=1,
    stages=(
        Stage(16, 1, "relu", True, (1, 2)),
        Stage(200, 2, "hswish", True, (1, 3)),
        Stage(16, 2, "relu", False, (1,)),
    ),
    head=(32, 400),
)


def _ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("node", "entry", "weight", "macs"),
    [
        (
            make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1]),
            (1, 4, 8, 8),
            (6, 4, 3, 3),
            4 * 4 * 6 * 36,
        ),
        (make_node("Conv", ["x", "w"], ["y"], group=4), (1, 4, 8, 8), (4, 1, 3, 3), 6 * 6 * 4 * 9),
        (make_node("Conv", ["x", "w"], ["y"], group=2), (1, 4, 8, 8), (6, 2, 1, 1), 8 * 8 * 6 * 2),
        (make_node("Conv", ["x", "w"], ["y"]), (1, 4, 8), (6, 4, 3), 6 * 6 * 12),
        (make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]), (1, 4, 5, 5), (4, 3, 2, 2), 5 * 5 * 4 * 3 * 4),
        (make_node("Gemm", ["x", "w"], ["y"]), (2, 5), (5, 7), 2 * 5 * 7),
        (make_node("Gemm", ["x", "w"], ["y"], transA=1, transB=1), (5, 2), (7, 5), 2 * 5 * 7),
        (make_node("MatMul", ["x", "w"], ["y"]), (3, 2, 5), (5, 7), 3 * 2 * 5 * 7),
        (make_node("MatMul", ["x", "w"], ["y"]), (5,), (5,), 5),
    ],
)
def test_macs_by_hand(
    make_model: MakeModel, node: NodeProto, entry: tuple[int, ...], weight: tuple[int, ...], macs: int
) -> None:
    """Each operator that multiplies has the number of products that its definition says."""
    summary = summarise_model(make_model([node], {"x": entry}, ["y"], {"w": _ones(*weight)}))
    assert (summary.macs, summary.unsupported) == (macs, {})


def test_weights_are_counted_wherever_they_are_stored(make_model: MakeModel) -> None:
    """Initialisers and Constant nodes count with their own element sizes."""
    half = helper.make_tensor("value", TensorProto.FLOAT16, [1, 3], [1.0, 2.0, 3.0])
    nodes = [
        make_node("Constant", [], ["h"], value=half),
        make_node("Cast", ["h"], ["c"], to=TensorProto.FLOAT),
        make_node("Add", ["x", "w"], ["a"]),
        make_node("Add", ["a", "c"], ["y"]),
    ]
    summary = summarise_model(make_model(nodes, {"x": (1, 3)}, ["y"], {"w": _ones(1, 3)}))
    assert (summary.params, summary.weight_bytes) == (6, 12 + 6)


def test_operators_are_counted_and_unknown_ones_returned(make_model: MakeModel) -> None:
    """An operator whose MACs are unknown is in ``unsupported``, never taken for free."""
    nodes = [
        make_node("Relu", ["x"], ["a"]),
        make_node("Magic", ["a"], ["b"], domain="mine"),
        make_node("Relu", ["b"], ["y"]),
    ]
    summary = summarise_model(make_model(nodes, {"x": (1, 3)}, ["y"], domains=["mine"]))
    assert summary.operators == {"Relu": 2, "mine.Magic": 1}
    assert summary.unsupported == {"mine.Magic": 1}
    assert (summary.unsized, summary.outputs) == (2, {"y": None})


def test_a_multiplication_of_unknown_size_is_unsupported(make_model: MakeModel) -> None:
    """A known operator whose shapes are not known has unknown MACs too."""
    nodes = [make_node("Magic", ["x"], ["a"], domain="mine"), make_node("MatMul", ["a", "w"], ["y"])]
    summary = summarise_model(make_model(nodes, {"x": (1, 3)}, ["y"], {"w": _ones(3, 3)}, domains=["mine"]))
    assert (summary.macs, summary.unsupported) == (0, {"MatMul": 1, "mine.Magic": 1})


def test_ends_are_given_by_name(make_model: MakeModel) -> None:
    """Shapes of inputs and outputs, the batch taken as 1."""
    summary = summarise_model(make_model([make_node("Flatten", ["x"], ["y"])], {"x": ("N", 3, 4, 4)}, ["y"]))
    assert (summary.inputs, summary.outputs) == ({"x": (1, 3, 4, 4)}, {"y": (1, 48)})


def _pool(source: str, target: str) -> NodeProto:
    """A node that cannot write over its input: (1, C, n, n) -> the same shape."""
    return make_node("MaxPool", [source], [target], kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def _peak(make_model: MakeModel, nodes: list[NodeProto], outputs: list[str]) -> tuple[int, str]:
    """Peak in tensors of x's size, and the output of the node where it is reached."""
    summary = summarise_model(make_model(nodes, {"x": (1, 2, 4, 4)}, outputs, {"w": _ones(1, 2, 4, 4)}))
    assert summary.activation_bytes % 128 == 0
    return summary.activation_bytes // 128, summary.peak_at.partition(":")[2]


def test_a_chain_holds_two_tensors(make_model: MakeModel) -> None:
    """Input and output of each node in turn; what was read last is free again."""
    assert _peak(make_model, [_pool("x", "a"), _pool("a", "b"), _pool("b", "y")], ["y"]) == (2, "a")


def test_elementwise_operators_write_over_their_input(make_model: MakeModel) -> None:
    """A chain of elementwise operators needs one buffer, its input's."""
    nodes = [make_node("Relu", ["x"], ["a"]), make_node("Add", ["a", "w"], ["b"]), make_node("Sigmoid", ["b"], ["y"])]
    assert _peak(make_model, nodes, ["y"])[0] == 1


def test_an_input_that_is_read_later_is_not_written_over(make_model: MakeModel) -> None:
    """The shortcut of a residual sum stays alive until the sum, which writes over one of its sides."""
    nodes = [make_node("Relu", ["x"], ["a"]), _pool("a", "b"), make_node("Add", ["x", "b"], ["y"])]
    assert _peak(make_model, nodes, ["y"]) == (3, "b")


def test_a_graph_output_lives_to_the_end(make_model: MakeModel) -> None:
    """An early output is neither freed nor written over."""
    nodes = [_pool("x", "a"), make_node("Relu", ["a"], ["b"]), _pool("b", "y")]
    assert _peak(make_model, nodes, ["a", "y"]) == (3, "y")


def test_reshapes_are_free_and_keep_their_source_alive(make_model: MakeModel) -> None:
    """A flattened tensor is the tensor itself, also for the question when it dies."""
    nodes = [_pool("x", "a"), make_node("Identity", ["a"], ["i"]), _pool("a", "b"), make_node("Add", ["i", "b"], ["y"])]
    assert _peak(make_model, nodes, ["y"]) == (2, "a")


def test_a_broadcast_result_needs_a_buffer_of_its_own(make_model: MakeModel) -> None:
    """An elementwise result larger than the input that dies is not written over it."""
    nodes = [make_node("Add", ["x", "w"], ["y"])]
    summary = summarise_model(make_model(nodes, {"x": (1, 2, 1, 1)}, ["y"], {"w": _ones(1, 2, 4, 4)}))
    assert summary.activation_bytes == 8 + 128


def test_what_follows_from_constants_alone_counts_as_a_constant(make_model: MakeModel) -> None:
    """The runtime folds a node that reads constants only."""
    nodes = [make_node("Relu", ["w"], ["c"]), make_node("Add", ["x", "c"], ["y"])]
    assert _peak(make_model, nodes, ["y"])[0] == 1


def test_an_unread_output_counts_where_it_is_made(make_model: MakeModel) -> None:
    """A result that no one reads needs room while its node runs, and none after."""
    assert _peak(make_model, [_pool("x", "a"), _pool("x", "unread"), _pool("a", "y")], ["y"]) == (3, "unread")


def test_a_tensor_that_a_branch_reads_stays_alive(make_model: MakeModel) -> None:
    """A subgraph's reads of outer tensors count as reads of its node."""
    shape = (1, 2, 4, 4)
    branch = helper.make_graph(
        [make_node("Relu", ["x"], ["z"])], "branch", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, shape)]
    )
    true = helper.make_tensor("value", TensorProto.BOOL, [], [True])
    nodes = [
        make_node("Constant", [], ["yes"], value=true),
        _pool("x", "a"),
        _pool("a", "b"),
        make_node("If", ["yes"], ["c"], then_branch=branch, else_branch=branch),
        make_node("Add", ["b", "c"], ["y"]),
    ]
    assert _peak(make_model, nodes, ["y"]) == (3, "b")


def _summary(architecture: Architecture) -> GraphSummary:
    return summarise_model(build_onnx(architecture, random_weights(architecture)))


def _assert_space_and_graph_agree(architecture: Architecture) -> None:
    space = architecture.space
    genes, summary = space.encode([architecture]), _summary(architecture)
    assert summary.macs == space.macs(genes)[0]
    assert summary.weight_bytes == space.weight_bytes(genes)[0]
    assert summary.activation_bytes == space.activation_bytes(genes)[0]
    assert (summary.unsupported, summary.unsized) == ({}, 0)
    assert summary.outputs == {"logits": (1, space.classes)}


@pytest.mark.parametrize("space", [_SMALL, _OWN], ids=["small", "own stages"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_space_and_graph_agree_on_every_architecture(space: MobileNetV3, seed: int) -> None:
    """MACs, weight bytes and peak activation memory of the file are those that the genes predict."""
    (architecture,) = space.decode(space.sample(1, np.random.default_rng(seed)))
    _assert_space_and_graph_agree(architecture)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_space_and_graph_agree_at_full_size(seed: int) -> None:
    """The same at width 1.0 and 224 pixels."""
    (architecture,) = _FULL.decode(_FULL.sample(1, np.random.default_rng(seed)))
    _assert_space_and_graph_agree(architecture)


def test_published_macs_of_the_released_network() -> None:
    """The largest subnet of width 1.0 at 224 pixels has Once-for-All's 566,170,656 MACs."""
    assert _summary(_FULL.largest).macs == 566_170_656


@pytest.mark.parametrize(
    ("name", "nodes", "convolutions", "inputs"),
    [("FastestDet", 211, 70, {"input.1": (1, 3, 352, 352)}), ("yunet_n_320_320", 115, 59, {"input": (1, 3, 320, 320)})],
)
def test_real_models_are_read_whole(
    name: str, nodes: int, convolutions: int, inputs: dict[str, tuple[int, ...]], real_models: Path
) -> None:
    """Detectors from elsewhere have no unknown operator and no unknown shape."""
    summary = summarise_model(real_models / f"{name}.onnx")
    assert sum(summary.operators.values()) == nodes
    assert (summary.operators["Conv"], summary.inputs) == (convolutions, inputs)
    assert (summary.unsupported, summary.unsized) == ({}, 0)
