"""Activations that are fused into the operator before them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from edgenas.export.tflite.converter import NO_ACTIVATION, Activation, Converter
from edgenas.export.tflite.graph import Node

CODES = {"NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}  # ActivationFunctionType of the schema
_CLIPS = {(0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1", (0.0, 1.0): "RELU_0_TO_1", (0.0, math.inf): "RELU"}
Fusing = Mapping[str, Callable[[Converter, Node], Activation]]


def activation_after(converter: Converter, node: Node, fusing: Fusing) -> Activation:
    """Return the activation that alone reads a node's output, if ``fusing`` has it for the node's operator."""
    reader = converter.graph.only_reader(node.output)
    if reader is None or reader.operator not in fusing:
        return NO_ACTIVATION
    return fusing[reader.operator](converter, reader)


def clip_builtin(converter: Converter, node: Node) -> str | None:
    """Return the builtin operator that clips to a Clip's limits, if there is one.

    Limits are inputs since operator set 11 and were attributes before.
    """
    limits = [node.attributes.get("min", -math.inf), node.attributes.get("max", math.inf)]
    for position, name in enumerate(node.inputs[1:3]):
        if name:
            values = converter.graph.constants.get(name)
            if values is None:
                return None
            limits[position] = float(values.item())
    return _CLIPS.get((limits[0], limits[1]))


def hard_sigmoid(converter: Converter, node: Node) -> Activation:
    """Return max(0, min(1, alpha * x + beta)) as a sixth of relu6(6 * alpha * x + 6 * beta)."""
    gain = 6 * node.attributes.get("alpha", 0.2)
    if math.isclose(gain, 1, rel_tol=1e-6):  # alpha is 1/6 rounded to float32
        gain = 1.0
    return Activation("RELU6", node, gain, 6 * node.attributes.get("beta", 0.5), 1 / 6)


def _fuse_clip(converter: Converter, node: Node) -> Activation:
    builtin = clip_builtin(converter, node)
    return NO_ACTIVATION if builtin not in CODES else Activation(builtin, node)


PLAIN: Fusing = {"Relu": lambda converter, node: Activation("RELU", node), "Clip": _fuse_clip}
"""The activations that every operator can take over."""
AFFINE: Fusing = {**PLAIN, "HardSigmoid": hard_sigmoid}
"""The activations that an operator with weights and bias can take over: these also take a gain and a shift."""
