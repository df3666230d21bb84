"""Activations that the operator before them does too, at no cost of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from edgenas.export.tflite.converter import NO_ACTIVATION, Activation, Converter
from edgenas.export.tflite.graph import Node

CODES = {"NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}  # ActivationFunctionType of the schema
_CLIPS = {(0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1", (0.0, 1.0): "RELU_0_TO_1", (0.0, math.inf): "RELU"}
Fusing = Mapping[str, Callable[[Converter, Node], Activation]]


def activation_after(converter: Converter, node: Node, fusing: Fusing) -> Activation:
    """The activation that alone reads a node's output, if the node's operator can do it by ``fusing``."""
    reader = converter.graph.only_reader(node.output)
    return (
        NO_ACTIVATION if reader is None or reader.operator not in fusing else fusing[reader.operator](converter, reader)
    )


def clip_kind(converter: Converter, node: Node) -> str | None:
    """The operator that clips to a Clip's limits, if there is one.

    Limits are inputs since operator set 11 and were attributes before.
    """
    limits = [node.attributes.get("min", -math.inf), node.attributes.get("max", math.inf)]
    for place, name in enumerate(node.inputs[1:3]):
        if name:
            values = converter.graph.constants.get(name)
            if values is None:
                return None
            limits[place] = float(values.item())
    return _CLIPS.get((limits[0], limits[1]))


def hard_sigmoid(converter: Converter, node: Node) -> Activation:
    """max(0, min(1, alpha * x + beta)) as a sixth of relu6(6 * alpha * x + 6 * beta)."""
    gain = 6 * node.attributes.get("alpha", 0.2)
    if math.isclose(gain, 1, rel_tol=1e-6):  # ONNX has 1/6 as the nearest float32
        gain = 1.0
    return Activation("RELU6", node, gain, 6 * node.attributes.get("beta", 0.5), 1 / 6)


def _relu(converter: Converter, node: Node) -> Activation:
    return Activation("RELU", node)


def _clip(converter: Converter, node: Node) -> Activation:
    kind = clip_kind(converter, node)
    return NO_ACTIVATION if kind not in CODES else Activation(kind, node)


PLAIN: Fusing = {"Relu": _relu, "Clip": _clip}
# Weights and bias take a gain and a shift too.
AFFINE: Fusing = {**PLAIN, "HardSigmoid": hard_sigmoid}
