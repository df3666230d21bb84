"""The multiply-accumulates of ONNX operators: a small pure function for each, in a dictionary.

The MACs of an operator that is in none of the tables are unknown, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from edgenas.graph.model import Node, Tensor

Tensors = Sequence[Tensor | None]
Macs = Callable[[Node, Tensors, Tensors], int | None]


def _conv_macs(node: Node, inputs: Tensors, outputs: Tensors) -> int | None:
    """Sum each output number over the kernel and the channels of one group; W is (M, C / groups, k...)."""
    weight, out = inputs[1], outputs[0]
    return None if weight is None or out is None else out.size * math.prod(weight.shape[1:])


def _conv_transpose_macs(node: Node, inputs: Tensors, outputs: Tensors) -> int | None:
    """Spread each input number over the kernel and the channels of one group; W is (C, M / groups, k...)."""
    data, weight = inputs[:2]
    return None if data is None or weight is None else data.size * math.prod(weight.shape[1:])


def _gemm_macs(node: Node, inputs: Tensors, outputs: Tensors) -> int | None:
    left, out = inputs[0], outputs[0]
    if left is None or out is None or len(left.shape) != 2:
        return None
    return out.size * left.shape[0 if node.attributes.get("transA", 0) else 1]


def _matmul_macs(node: Node, inputs: Tensors, outputs: Tensors) -> int | None:
    left, out = inputs[0], outputs[0]
    return None if left is None or out is None or not left.shape else out.size * left.shape[-1]


MACS: dict[str, Macs] = {
    "Conv": _conv_macs,
    "ConvTranspose": _conv_transpose_macs,
    "Gemm": _gemm_macs,
    "MatMul": _matmul_macs,
}

ALIASES = frozenset({"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators whose output is their first input with another shape or name."""

ELEMENTWISE = frozenset(
    {
        "Abs",
        "Add",
        "And",
        "BatchNormalization",
        "Cast",
        "Ceil",
        "Celu",
        "Clip",
        "Cos",
        "Div",
        "Elu",
        "Equal",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "Greater",
        "GreaterOrEqual",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Log",
        "Max",
        "Mean",
        "Min",
        "Mish",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "PRelu",
        "Pow",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
        "Sin",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Sub",
        "Sum",
        "Tan",
        "Tanh",
        "ThresholdedRelu",
        "Where",
        "Xor",
    }
)
"""Operators that can overwrite an input of the same size. Their arithmetic does not count as MACs."""

WITHOUT_MACS = (
    ALIASES
    | ELEMENTWISE
    | frozenset(
        {
            "ArgMax",
            "ArgMin",
            "AveragePool",
            "Concat",
            "Constant",
            "ConstantOfShape",
            "DepthToSpace",
            "DequantizeLinear",
            "DynamicQuantizeLinear",
            "Expand",
            "Gather",
            "GatherElements",
            "GatherND",
            "GlobalAveragePool",
            "GlobalMaxPool",
            "GroupNormalization",
            "InstanceNormalization",
            "LRN",
            "LayerNormalization",
            "LogSoftmax",
            "LpNormalization",
            "MaxPool",
            "NonMaxSuppression",
            "NonZero",
            "OneHot",
            "Pad",
            "QuantizeLinear",
            "Range",
            "ReduceL1",
            "ReduceL2",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "ReduceSumSquare",
            "Resize",
            "ScatterElements",
            "ScatterND",
            "Shape",
            "Size",
            "Slice",
            "Softmax",
            "SpaceToDepth",
            "Split",
            "Tile",
            "TopK",
            "Transpose",
            "Upsample",
        }
    )
)
"""Operators with 0 MACs: they move, pool, normalise or reduce."""


def count_macs(node: Node, inputs: Tensors, outputs: Tensors) -> int | None:
    """Return the multiply-accumulates of a node; None where they are unknown.

    Args:
        node: the node.
        inputs: the node's input tensors, in order; None for one of unknown shape.
        outputs: the node's output tensors, in order; None for one of unknown shape.
    """
    if node.operator in WITHOUT_MACS:
        return 0
    if node.operator not in MACS or len(inputs) < 2:
        return None
    return MACS[node.operator](node, inputs, outputs)
