"""Reading ONNX files, and refusing damaged ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.helper import make_node

from edgenas.errors import ModelError, UsageError
from edgenas.export import build_onnx, random_weights
from edgenas.graph import Graph, read_graph, summarise_model
from edgenas.space import MobileNetV3

MakeModel = Callable[..., bytes]
_SPACE = MobileNetV3(width=0.1, resolutions=(8,), classes=2, head=(8, 8))
_WHOLE = build_onnx(_SPACE.smallest, random_weights(_SPACE.smallest))  # its first 10 kB are nodes


def test_nodes_tensors_and_ends_are_read(make_model: MakeModel) -> None:
    """Names, operators, shapes and element sizes come as plain values."""
    model = make_model(
        [make_node("Relu", ["x"], ["a"], "first"), make_node("Add", ["a", "w"], ["y"])],
        {"x": (1, 2)},
        ["y"],
        {"w": np.ones((3, 1), np.float32)},
    )
    graph = read_graph(model)
    assert [(node.name, node.operator, node.inputs) for node in graph.nodes] == [
        ("first", "Relu", ("x",)),
        ("Add:y", "Add", ("a", "w")),
    ]
    assert {name: tensor.shape for name, tensor in graph.tensors.items()} == {
        "x": (1, 2),
        "a": (1, 2),
        "w": (3, 1),
        "y": (3, 2),
    }
    assert graph.tensors["y"].nbytes == 24
    assert (tuple(graph.constants), graph.inputs, graph.outputs) == (("w",), ("x",), ("y",))


def test_a_file_is_read_like_its_bytes(tmp_path: Path) -> None:
    """A path and its bytes give the same graph."""
    path = tmp_path / "model.onnx"
    path.write_bytes(_WHOLE)
    assert _names(read_graph(path)) == _names(read_graph(_WHOLE))


def _names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes]


@pytest.mark.parametrize("batch", ["N", 0, -1])
def test_a_symbolic_batch_is_taken_as_one(make_model: MakeModel, batch: int | str) -> None:
    """The first dimension of an input may be unknown; it is 1, and so everywhere behind it."""
    graph = read_graph(make_model([make_node("Relu", ["x"], ["y"])], {"x": (batch, 3)}, ["y"]))
    assert (graph.tensors["x"].shape, graph.tensors["y"].shape) == ((1, 3), (1, 3))


def test_another_unknown_dimension_is_refused(make_model: MakeModel) -> None:
    """An input whose height may vary has no costs; the message names input and dimension."""
    with pytest.raises(ModelError, match=r"'x' has no fixed size in dimension 2 \(height\)"):
        read_graph(make_model([make_node("Relu", ["x"], ["y"])], {"x": (1, 3, "height", 8)}, ["y"]))


def test_an_operator_of_another_domain_is_read_under_its_full_name(make_model: MakeModel) -> None:
    """A custom operator keeps its domain and makes what follows it unsized."""
    nodes = [make_node("Relu", ["x"], ["a"], domain="mine"), make_node("Relu", ["a"], ["y"])]
    model = make_model(nodes, {"x": (1, 3)}, ["y"], domains=["mine"])
    assert [node.operator for node in read_graph(model).nodes] == ["mine.Relu", "Relu"]


def test_a_stale_shape_in_the_file_is_no_obstacle(make_model: MakeModel) -> None:
    """A stored shape that contradicts the graph only stops strict inference."""
    proto = onnx.load_model_from_string(make_model([make_node("Relu", ["x"], ["y"])], {"x": (1, 3)}, ["y"]))
    proto.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (5, 5)))
    assert read_graph(proto.SerializeToString()).tensors["x"].shape == (1, 3)


@pytest.mark.parametrize(
    ("nodes", "outputs", "rule"),
    [
        ([make_node("Relu", ["nothing"], ["y"])], ["y"], "reads 'nothing'"),
        ([make_node("Relu", ["a"], ["y"]), make_node("Relu", ["x"], ["a"])], ["y"], "reads 'a'"),
        ([make_node("Relu", ["x"], ["y"])], ["z"], "no node makes the output 'z'"),
        ([make_node("Relu", ["x"], [])], [], "outputs are missing"),
        ([], [], "nodes"),
    ],
)
def test_a_graph_that_hangs_together_badly_is_refused(
    make_model: MakeModel, nodes: list[onnx.NodeProto], outputs: list[str], rule: str
) -> None:
    """Every tensor must be made before it is read."""
    with pytest.raises(ModelError) as caught:
        read_graph(make_model(nodes, {"x": (1, 3)}, outputs))
    assert rule in str(caught.value)


def test_a_cut_weight_is_refused_by_name(make_model: MakeModel) -> None:
    """A stored tensor with too few bytes is named with both sizes."""
    weights = {"w": np.ones((4, 3), np.float32)}
    proto = onnx.load_model_from_string(
        make_model([make_node("Add", ["x", "w"], ["y"])], {"x": (1, 3)}, ["y"], weights)
    )
    proto.graph.initializer[0].raw_data = b"\0" * 40
    with pytest.raises(ModelError, match=r"'w' of shape \[4, 3\] needs 48 bytes, but has 40"):
        read_graph(proto.SerializeToString())


def test_weights_in_another_file_are_known_by_their_shape(make_model: MakeModel) -> None:
    """What a model keeps in another file has the declared size; that file is not opened."""
    weights = {"w": np.ones((4, 3), np.float32)}
    proto = onnx.load_model_from_string(
        make_model([make_node("Add", ["x", "w"], ["y"])], {"x": (1, 3)}, ["y"], weights)
    )
    onnx.external_data_helper.set_external_data(proto.graph.initializer[0], "../elsewhere.bin")
    assert read_graph(proto.SerializeToString()).constants["w"].nbytes == 48


def test_shapes_that_are_given_stand_for_open_ones(make_model: MakeModel) -> None:
    """An input of any shape has the one that it was run with."""
    model = make_model([make_node("Relu", ["x"], ["y"])], {"x": ("batch", "height", 3)}, ["y"])
    assert read_graph(model, {"x": (2, 5, 3)}).tensors["y"].shape == (2, 5, 3)
    with pytest.raises(ModelError, match="no fixed size in dimension 1"):
        read_graph(model, {"other": (1,)})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path without a file is named."""
    with pytest.raises(UsageError, match=r"gone\.onnx"):
        read_graph(tmp_path / "gone.onnx")


@pytest.mark.parametrize("data", [b"", b"no model", _WHOLE[: len(_WHOLE) // 2], b"\x08\x08"])
def test_damaged_bytes_are_refused_on_one_line(data: bytes) -> None:
    """Empty, foreign and cut files are refused with a remedy."""
    with pytest.raises(ModelError, match="export it again") as caught:
        read_graph(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["input", "initializer"])
def test_an_unknown_element_type_is_refused_by_name(make_model: MakeModel, kind: str) -> None:
    """A tensor of a type that ONNX does not know is named."""
    weights = {"w": np.ones(3, np.float32)}
    proto = onnx.load_model_from_string(
        make_model([make_node("Add", ["x", "w"], ["y"])], {"x": (1, 3)}, ["y"], weights)
    )
    if kind == "input":
        proto.graph.input[0].type.tensor_type.elem_type = 99
    else:
        proto.graph.initializer[0].data_type = 99
    with pytest.raises(ModelError, match="element type 99"):
        read_graph(proto.SerializeToString())


def test_a_name_that_is_no_text_is_refused(make_model: MakeModel) -> None:
    """An operator whose name is no UTF-8 is damage."""
    model = make_model([make_node("Strange", ["x"], ["y"])], {"x": (1, 3)}, ["y"])
    with pytest.raises(ModelError, match="is no UTF-8"):
        read_graph(model.replace(b"Strange", b"Str\xffnge"))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes_give_a_summary_or_one_line(changes: list[tuple[int, int]]) -> None:
    """With any bytes changed, the answer is a summary or a ModelError on one line."""
    data = bytearray(_WHOLE)
    for place, value in changes:
        data[place] = value
    try:
        summarise_model(bytes(data))
    except ModelError as error:
        assert "\n" not in str(error)  # noqa: PT017 - both outcomes are right


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    """No random bytes pass for a model."""
    with pytest.raises(ModelError):
        read_graph(data)
