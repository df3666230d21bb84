"""Each ONNX operator in TFLite: the numbers of onnxruntime, by as few operators as can be."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgenas.errors import ModelError, UncoveredOperatorError, UsageError, VerificationError
from edgenas.export import run_onnx
from edgenas.export.tflite.interpreter import run_tflite
from edgenas.export.tflite.writer import build_tflite

Graphs = Callable[..., bytes]
Operators = Callable[[bytes], list[str]]
Node = tuple[str, str, dict[str, Any]]
RNG = np.random.default_rng(0)
SIXTH = {"alpha": 1 / 6, "beta": 0.5}


def _random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


def _check(model: bytes, shape: tuple[int, ...]) -> bytes:
    """The TFLite file of a model, after it gave onnxruntime's numbers on random images and on those of one sign."""
    file = build_tflite(model)
    noise = _random(*shape) * 4
    for images in (noise, -np.abs(noise), np.abs(noise)):
        expected, actual = run_onnx(model, images), run_tflite(file, images)
        if expected.ndim == 4:
            expected = np.moveaxis(expected, 1, -1)
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)
    return file


def _conv(**attributes: Any) -> Node:
    return ("Conv", "x w b -> y", attributes)


@pytest.mark.parametrize("size", [9, 10])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolutions(
    small_graph: Graphs, operators_of: Operators, size: int, stride: int, kernel: int, groups: int
) -> None:
    """Ordinary, grouped and depthwise ones, over odd and even maps, are padded where SAME would shift them."""
    node = _conv(kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4, strides=[stride] * 2, group=groups)
    model = small_graph((1, 4, size, size), node, w=_random(8, 4 // groups, kernel, kernel), b=_random(8))
    kinds = [line.split()[0] for line in operators_of(_check(model, (2, 4, size, size)))]
    shifted = kernel > 1 and stride == 2 and size == 10
    if groups == 4 and kernel == 7:
        assert kinds.count("DEPTHWISE_CONV_2D") == 3
    else:
        assert kinds == ["PAD"] * shifted + ["DEPTHWISE_CONV_2D" if groups == 4 else "CONV_2D"]


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [3, 5], "pads": [1, 2, 1, 2]},
        {"kernel_shape": [3, 5], "pads": [0, 0, 2, 1], "strides": [2, 1]},
        {"kernel_shape": [3, 5], "strides": [1, 2]},
        {"kernel_shape": [3, 5], "pads": [2, 4, 2, 4], "dilations": [2, 2]},
    ],
)
def test_oblong_and_dilated_convolutions(small_graph: Graphs, attributes: dict[str, Any]) -> None:
    """Height and width are not mixed up."""
    model = small_graph((1, 3, 8, 11), _conv(**attributes), w=_random(4, 3, 3, 5), b=_random(4))
    _check(model, (1, 3, 8, 11))


def test_a_convolution_without_bias(small_graph: Graphs) -> None:
    """No bias is a bias of zeros."""
    _check(small_graph((1, 3, 5, 5), ("Conv", "x w -> y", {}), w=_random(4, 3, 1, 1)), (1, 3, 5, 5))


@pytest.mark.parametrize(
    ("size", "kernel", "parts"), [(12, (7, 7), 3), (13, (9, 9), 5), (12, (5, 6), 2), (12, (7, 3), 1), (9, (11, 2), 1)]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_large_depthwise_kernels_are_sums_of_small_ones(
    small_graph: Graphs, operators_of: Operators, size: int, kernel: tuple[int, int], parts: int, stride: int
) -> None:
    """More than 25 taps are parts of at most 25: 7x7 is the three middle rows and two pairs of rows."""
    pads = [kernel[0] // 2, kernel[1] // 2] * 2
    node = ("Conv", "x w b -> c", {"kernel_shape": kernel, "pads": pads, "strides": [stride] * 2, "group": 4})
    model = small_graph((1, 4, size, size), node, ("Relu", "c -> y", {}), w=_random(4, 1, *kernel), b=_random(4))
    lines = operators_of(_check(model, (2, 4, size, size)))
    assert sum(line.startswith("DEPTHWISE_CONV_2D") for line in lines) == parts
    assert lines[-1] == ("ADD y" if parts > 1 else "DEPTHWISE_CONV_2D y")
    if parts > 1:
        assert "DEPTHWISE_CONV_2D c_node/rows1" in lines


@pytest.mark.parametrize(
    "attributes", [{}, {"pads": [1] * 4}, {"pads": [6] * 4, "dilations": [2, 2]}], ids=["unpadded", "less", "dilated"]
)
def test_depthwise_kernels_that_cannot_be_split_stay_whole(
    small_graph: Graphs, operators_of: Operators, attributes: dict[str, Any]
) -> None:
    """Without the padding that its parts need, or with holes already, a large kernel is one operator."""
    node = ("Conv", "x w b -> y", {"kernel_shape": [7, 7], "group": 4, **attributes})
    model = small_graph((1, 4, 15, 15), node, w=_random(4, 1, 7, 7), b=_random(4))
    kinds = [line.split()[0] for line in operators_of(_check(model, (1, 4, 15, 15)))]
    assert kinds.count("DEPTHWISE_CONV_2D") == 1


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        (("Relu", "c -> y", {}), {}),
        (("Clip", "c low high -> y", {}), {"low": 0, "high": 6}),
        (("Clip", "c low high -> y", {}), {"low": -1, "high": 1}),
        (("Clip", "c low -> y", {}), {"low": 0}),
    ],
)
@pytest.mark.parametrize("before", ["Conv", "Add", "Mul"])
def test_activations_are_part_of_the_operator_before(
    small_graph: Graphs, operators_of: Operators, node: Node, constants: dict[str, float], before: str
) -> None:
    """ReLU and the clips that TFLite knows cost no operator of their own."""
    first: Node = ("Conv", "x w -> c", {}) if before == "Conv" else (before, "x x -> c", {})
    model = small_graph((1, 3, 4, 4), first, node, w=_random(3, 3, 1, 1), **constants)
    kind = {"Conv": "CONV_2D", "Add": "ADD", "Mul": "MUL"}[before]
    assert operators_of(_check(model, (1, 3, 4, 4))) == [f"{kind} y"]


@pytest.mark.parametrize(
    ("node", "constants", "kind"),
    [
        (("Relu", "x -> y", {}), {}, "RELU"),
        (("Clip", "x low high -> y", {}), {"low": 0, "high": 6}, "RELU6"),
        (("Clip", "x low high -> y", {}), {"low": -1, "high": 1}, "RELU_N1_TO_1"),
        (("Clip", "x low high -> y", {}), {"low": 0, "high": 1}, "RELU_0_TO_1"),
        (("HardSwish", "x -> y", {}), {}, "HARD_SWISH"),
        (("GlobalAveragePool", "x -> y", {}), {}, "MEAN"),
        (("ReduceMean", "x -> y", {"axes": [2, 3]}), {}, "MEAN"),
        (("ReduceMean", "x -> y", {"axes": [-1, -2], "keepdims": 0}), {}, "MEAN"),
    ],
)
def test_operators_of_one_input(
    small_graph: Graphs, operators_of: Operators, node: Node, constants: dict[str, float], kind: str
) -> None:
    """One operator is one operator."""
    model = small_graph((1, 3, 4, 5), node, **constants)
    assert operators_of(_check(model, (2, 3, 4, 5))) == [f"{kind} y"]


def test_an_activation_that_two_read_is_not_hidden(small_graph: Graphs, operators_of: Operators) -> None:
    """A tensor that another node or the caller reads is not fused away."""
    nodes: list[Node] = [("Conv", "x w -> c", {}), ("Relu", "c -> r", {}), ("Add", "c r -> y", {})]
    model = small_graph((1, 3, 4, 4), *nodes, w=_random(3, 3, 1, 1))
    assert operators_of(_check(model, (1, 3, 4, 4))) == ["CONV_2D c_node", "RELU r_node", "ADD y"]


def test_the_output_is_not_hidden_in_an_activation_behind_it(small_graph: Graphs, operators_of: Operators) -> None:
    """The graph's output is what its node computes, also if another node reads it."""
    nodes: list[Node] = [("Conv", "x w -> y", {}), ("Relu", "y -> r", {})]
    model = small_graph((1, 3, 4, 4), *nodes, w=_random(3, 3, 1, 1))
    assert operators_of(_check(model, (1, 3, 4, 4)))[0] == "CONV_2D y"


GATE: list[Node] = [
    ("GlobalAveragePool", "x -> p", {}),
    ("Conv", "p w b -> c", {}),
    ("HardSigmoid", "c -> g", SIXTH),
    ("Mul", "g x -> m", {}),
]


def test_a_hard_sigmoid_before_a_convolution_is_free(small_graph: Graphs, operators_of: Operators) -> None:
    """The gate of squeeze-and-excite: its sixth goes into the weights of the convolution behind."""
    weights = {"w": _random(6, 6, 1, 1), "b": _random(6), "v": _random(4, 6, 1, 1)}
    model = small_graph((1, 6, 4, 4), *GATE, ("Conv", "m v -> y", {}), **weights)
    expected = ["MEAN p_node", "CONV_2D c_node;g_node", "MUL m_node", "CONV_2D y"]
    assert operators_of(_check(model, (1, 6, 4, 4))) == expected


@pytest.mark.parametrize("after", [("Relu", "m -> y", {}), ("Add", "m m -> y", {}), ("HardSwish", "m -> y", {})])
def test_a_hard_sigmoid_before_something_else_is_scaled_while_small(
    small_graph: Graphs, operators_of: Operators, after: Node
) -> None:
    """Otherwise the gate itself is multiplied by a sixth, not the map."""
    model = small_graph((1, 6, 4, 4), *GATE, after, w=_random(6, 6, 1, 1), b=_random(6))
    assert "MUL g/scaled" in operators_of(_check(model, (1, 6, 4, 4)))


def test_a_hard_sigmoid_before_a_convolution_and_something_else_is_scaled_while_small(
    small_graph: Graphs, operators_of: Operators
) -> None:
    """One reader that cannot take the sixth is enough."""
    nodes: list[Node] = [("Conv", "m v -> d", {}), ("Add", "d m -> y", {})]
    model = small_graph((1, 6, 4, 4), *GATE, *nodes, w=_random(6, 6, 1, 1), b=_random(6), v=_random(6, 6, 1, 1))
    assert "MUL g/scaled" in operators_of(_check(model, (1, 6, 4, 4)))


@pytest.mark.parametrize("attributes", [SIXTH, {}, {"alpha": 0.5, "beta": 0.25}])
def test_hard_sigmoids_of_all_slopes(small_graph: Graphs, attributes: dict[str, float]) -> None:
    """Alone and behind a convolution, with ONNX's own slope of 0.2 too."""
    alone = small_graph((1, 6, 4, 4), ("HardSigmoid", "x -> y", attributes))
    _check(alone, (1, 6, 4, 4))
    nodes = [("Conv", "x w -> c", {}), ("HardSigmoid", "c -> y", attributes)]
    _check(small_graph((1, 6, 4, 4), *nodes, w=_random(6, 6, 1, 1)), (1, 6, 4, 4))


@pytest.mark.parametrize("operator", ["Add", "Mul"])
@pytest.mark.parametrize("shape", [(), (1,), (6, 1, 1), (1, 6, 1, 1), (4, 5)])
def test_constants_are_broadcast_as_in_onnx(small_graph: Graphs, operator: str, shape: tuple[int, ...]) -> None:
    """A constant against a map is put into the map's layout."""
    model = small_graph((1, 6, 4, 5), (operator, "c x -> y", {}), c=_random(*shape))
    _check(model, (2, 6, 4, 5))


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("size", [8, 9])
def test_max_pools_are_padded_with_what_changes_nothing(
    small_graph: Graphs, operators_of: Operators, size: int, positive: bool
) -> None:
    """Zeros behind an activation, minus infinity elsewhere, and nothing where SAME is right."""
    pool = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    nodes = [("Relu", "x -> r", {}), ("MaxPool", "r -> y", pool)] if positive else [("MaxPool", "x -> y", pool)]
    lines = operators_of(_check(small_graph((1, 3, size, size), *nodes), (1, 3, size, size)))
    padding = ["PAD y_node/pad" if positive else "PADV2 y_node/pad"] * (size == 8)
    assert lines == ["RELU r_node"] * positive + padding + ["MAX_POOL_2D y"]


@pytest.mark.parametrize("size", [6, 7, 1])
@pytest.mark.parametrize("ceil", [0, 1])
def test_average_pools_round_up_without_counting_what_is_not_there(small_graph: Graphs, size: int, ceil: int) -> None:
    """With ceil_mode the last window of an odd map averages over the pixels that it has."""
    if size == 1 and not ceil:
        return
    node = ("AveragePool", "x -> y", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": ceil})
    _check(small_graph((1, 3, size, size), node), (2, 3, size, size))


def test_average_pools_that_count_their_padding(small_graph: Graphs) -> None:
    """Zeros that count are zeros that are there."""
    node = ("AveragePool", "x -> y", {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1})
    _check(small_graph((1, 3, 6, 6), node), (1, 3, 6, 6))


FLATTENINGS: list[tuple[Node, dict[str, np.ndarray]]] = [
    (("Flatten", "x -> f", {}), {}),
    (("Reshape", "x s -> f", {}), {"s": np.array([0, -1])}),
    (("Reshape", "x s -> f", {}), {"s": np.array([-1, 60])}),
]


@pytest.mark.parametrize(("node", "constants"), FLATTENINGS)
@pytest.mark.parametrize("batch", [1, 2, "N"])
def test_a_flattened_map_is_read_by_the_layer_behind(
    small_graph: Graphs, operators_of: Operators, node: Node, constants: dict[str, np.ndarray], batch: int | str
) -> None:
    """The weights take the order of (H, W, C): nothing is transposed at run time."""
    gemm = ("Gemm", "f w b -> y", {"transB": 1})
    model = small_graph((batch, 3, 4, 5), node, gemm, w=_random(7, 60), b=_random(7), **constants)
    assert operators_of(_check(model, (2, 3, 4, 5))) == ["FULLY_CONNECTED y"]


@pytest.mark.parametrize(("node", "constants"), FLATTENINGS)
def test_a_flattened_map_that_others_read_has_the_order_of_onnx(
    small_graph: Graphs, operators_of: Operators, node: Node, constants: dict[str, np.ndarray]
) -> None:
    """A flattened map that is read as rows is transposed once."""
    model = small_graph((2, 3, 4, 5), node, ("Relu", "f -> y", {}), **constants)
    kinds = [line.split()[0] for line in operators_of(_check(model, (2, 3, 4, 5)))]
    assert kinds == ["TRANSPOSE", "RESHAPE", "RELU"]


def test_a_flattened_pixel_is_not_transposed(small_graph: Graphs, operators_of: Operators) -> None:
    """One pixel has one order."""
    model = small_graph((1, 3, 1, 1), ("Flatten", "x -> y", {}))
    assert operators_of(_check(model, (2, 3, 1, 1))) == ["RESHAPE y"]


@pytest.mark.parametrize(
    "attributes", [{"transB": 0}, {"transB": 1, "alpha": 2.0, "beta": 0.5}, {"transB": 1, "alpha": 0.25}]
)
def test_fully_connected_layers(small_graph: Graphs, attributes: dict[str, Any]) -> None:
    """Weights lie either way round and may be scaled."""
    shape = (7, 3) if attributes["transB"] else (3, 7)
    nodes = [("ReduceMean", "x -> m", {"axes": [2, 3], "keepdims": 0}), ("Gemm", "m w b -> y", attributes)]
    _check(small_graph((1, 3, 4, 5), *nodes, w=_random(*shape), b=_random(7)), (2, 3, 4, 5))


def test_constants_by_other_nodes_are_constants(small_graph: Graphs, operators_of: Operators) -> None:
    """Identity, Constant and Transpose of constants, as exporters write them, cost nothing."""
    nodes = [
        ("Identity", "b -> bias", {}),
        ("Transpose", "v -> w", {"perm": [1, 0]}),
        ("Constant", " -> s", {"value_ints": [0, -1]}),
        ("Reshape", "x s -> f", {}),
        ("Gemm", "f w bias -> g", {"transB": 1}),
        ("Identity", "g -> y", {}),
    ]
    model = small_graph((1, 3, 2, 2), *nodes, v=_random(12, 5), b=_random(5))
    assert operators_of(_check(model, (1, 3, 2, 2)))[0].startswith("FULLY_CONNECTED")


def test_weights_that_two_layers_share_are_each_ones_own(small_graph: Graphs) -> None:
    """One initialiser in two layers, one of which scales it, is two tensors."""
    nodes = [
        ("Conv", "x w b -> c", {}),
        ("HardSigmoid", "c -> g", {"alpha": 0.5}),
        ("Conv", "g w b -> y", {}),
    ]
    _check(small_graph((1, 3, 4, 4), *nodes, w=_random(3, 3, 1, 1), b=_random(3)), (1, 3, 4, 4))


def test_uncovered_operators_are_all_listed_with_the_second_route(small_graph: Graphs) -> None:
    """Each one once, by operator and node; those that merely read their outputs are not blamed."""
    nodes: list[Node] = [("Sin", "x -> a", {}), ("Relu", "a -> b", {}), ("Cos", "b -> c", {}), ("Sin", "x -> d", {})]
    with pytest.raises(UncoveredOperatorError) as caught:
        build_tflite(small_graph((1, 3, 4, 4), *nodes, ("Add", "c d -> y", {})))
    message = str(caught.value)
    assert "Sin 'a_node', 'd_node' is not covered; Cos 'c_node' is not covered" in message
    assert "Relu" not in message
    assert "Add" not in message
    assert "pip install 'edgenas[litert-torch]'" in message
    assert "edgenas.export.tflite_from_module" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("node", "constants", "rule"),
    [
        (("Clip", "x low high -> y", {}), {"low": 0, "high": 5}, "other limits"),
        (("Clip", "x l -> y", {}), {"l": 2}, "other limits"),
        (("Flatten", "x -> y", {"axis": 2}), {}, "another axis"),
        (("ReduceMean", "x -> y", {"axes": [1]}), {}, "other axes"),
        (("Reshape", "x s -> y", {}), {"s": np.array([1, 4, 12])}, "another shape"),
        (("Conv", "x x -> y", {}), {}, "float32 constant of rank 4"),
        (("Gemm", "x w -> y", {}), {"w": np.ones((3, 3), np.float32)}, "needs rows"),
        (
            ("AveragePool", "x -> y", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}),
            {},
            "cannot place",
        ),
        (("Conv", "x w -> y", {"auto_pad": "SAME_LOWER"}), {"w": np.ones((3, 3, 2, 2), np.float32)}, "pads"),
        (("Add", "c c -> y", {}), {"c": 1.0}, "constants alone"),
    ],
)
def test_covered_operators_in_odd_forms_are_refused_with_the_reason(
    small_graph: Graphs, node: Node, constants: dict[str, Any], rule: str
) -> None:
    """An operator that TFLite does not have is refused, never approximated."""
    with pytest.raises(UncoveredOperatorError, match=rule):
        build_tflite(small_graph((1, 3, 4, 4), node, **constants))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_named(small_graph: Graphs, value: float) -> None:
    """NaN and infinity are refused with the tensor's name."""
    weights = _random(4, 3, 1, 1)
    weights[1, 2] = value
    with pytest.raises(VerificationError, match="'w'"):
        build_tflite(small_graph((1, 3, 4, 4), ("Conv", "x w -> y", {}), w=weights))


def test_large_finite_weights_pass(small_graph: Graphs) -> None:
    """Finite weights whose sum overflows are accepted."""
    build_tflite(small_graph((1, 3, 4, 4), ("Conv", "x w -> y", {}), w=np.full((4, 3, 1, 1), 3e38, np.float32)))


@pytest.mark.parametrize("model", [b"", b"no model", b"\x08\x08"])
def test_a_damaged_model_is_one_line(model: bytes) -> None:
    """Bytes that are no ONNX file are refused."""
    with pytest.raises(ModelError) as caught:
        build_tflite(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, "H", "W"), (1, 3, 4, 4, 4)])
def test_inputs_that_are_no_images_are_refused(small_graph: Graphs, shape: tuple[int | str, ...]) -> None:
    """The input is (N, C, H, W), only N open."""
    with pytest.raises(UsageError, match=r"\(N, C, H, W\)"):
        build_tflite(small_graph(shape, ("Relu", "x -> y", {})))
