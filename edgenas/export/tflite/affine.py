"""Convolutions and fully connected layers in TFLite, with ONNX's padding."""

from __future__ import annotations

import numpy as np

from edgenas.export.tflite.converter import Activation, Converter, NotCoveredError, Shape, Value
from edgenas.export.tflite.fusing import AFFINE, CODES, activation_after
from edgenas.export.tflite.graph import Array, Node
from edgenas.export.tflite.windows import Window, read_window

SAME, VALID = 0, 1  # Padding of the schema


def convert_conv(converter: Converter, node: Node) -> None:
    """Convert a Conv, depthwise or not, with the activation after it."""
    source, kernel = converter.raw_value(node.inputs[0]), converter.float_constant(node, 1, 4)
    if len(source.shape) != 4 or source.flattened:
        raise NotCoveredError("needs a map (N, C, H, W), but reads rows")
    channels, groups = source.shape[3], node.attributes.get("group", 1)
    window = read_node_window(node, source, kernel.shape[2:])
    activation = activation_after(converter, node, AFFINE)
    kernel, bias = _absorb_scales(kernel, _read_bias(converter, node, len(kernel)), source.scale, activation)
    options = {
        "Padding": SAME if window.same else VALID,
        "StrideW": window.strides[1],
        "StrideH": window.strides[0],
        "FusedActivationFunction": CODES[activation.code],
        "DilationWFactor": window.dilations[1],
        "DilationHFactor": window.dilations[0],
    }
    depthwise = groups == channels > 1
    if depthwise:
        options["DepthMultiplier"] = len(kernel) // channels
    layout = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    inputs = (
        pad(converter, node, source, window),
        converter.add_constant(node.inputs[1], kernel.transpose(layout)),
        converter.add_constant(_bias_name(node), bias),
    )
    builtin, table = ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if depthwise else ("CONV_2D", "Conv2DOptions")
    converter.convert_node(
        builtin, node, inputs, (source.shape[0], *window.out, len(kernel)), table, options, activation
    )


def convert_gemm(converter: Converter, node: Node) -> None:
    """Convert a Gemm of rows, or of a flattened map with the weights reordered to its layout."""
    source, kernel = converter.raw_value(node.inputs[0]), converter.float_constant(node, 1, 2)
    if not (len(source.shape) == 2 or source.flattened) or node.attributes.get("transA", 0):
        raise NotCoveredError("needs rows, not transposed")
    if not node.attributes.get("transB", 0):
        kernel = kernel.T
    if source.flattened:
        _, height, width, channels = source.shape
        kernel = kernel.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(kernel), -1)
    activation = activation_after(converter, node, AFFINE)
    bias = _read_bias(converter, node, len(kernel)) * np.float32(node.attributes.get("beta", 1.0))
    kernel, bias = _absorb_scales(kernel, bias, source.scale * node.attributes.get("alpha", 1.0), activation)
    weights = converter.add_constant(node.inputs[1], kernel)
    inputs = (source.index, weights, converter.add_constant(_bias_name(node), bias))
    options = {"FusedActivationFunction": CODES[activation.code]}
    shape = (source.shape[0], len(kernel))
    converter.convert_node("FULLY_CONNECTED", node, inputs, shape, "FullyConnectedOptions", options, activation)


def _absorb_scales(kernel: Array, bias: Array, scale: float, activation: Activation) -> tuple[Array, Array]:
    """Multiply the weights by the source's scale and apply the activation's gain and shift."""
    gain = activation.gain
    if scale * gain != 1:
        kernel = kernel * np.float32(scale * gain)
    return kernel, bias * np.float32(gain) + np.float32(activation.shift)


def _read_bias(converter: Converter, node: Node, size: int) -> Array:
    if len(node.inputs) < 3 or not node.inputs[2]:
        return np.zeros(size, np.float32)
    bias = converter.graph.constants.get(node.inputs[2])
    if bias is None or bias.dtype != np.float32 or bias.size not in (1, size):
        raise NotCoveredError(f"the bias must be a float32 constant of {size} numbers")
    return np.broadcast_to(bias.reshape(-1), size)


def _bias_name(node: Node) -> str:
    return node.inputs[2] if len(node.inputs) > 2 and node.inputs[2] else f"{node.name}.bias"


def read_node_window(node: Node, source: Value, kernel: Shape) -> Window:
    """Return the window that a node slides over its source."""
    window = read_window((source.shape[1], source.shape[2]), kernel, node.attributes)
    if window is None:
        raise NotCoveredError("needs a two-dimensional window with pads written out")
    return window


def pad(converter: Converter, node: Node, source: Value, window: Window, value: float = 0.0) -> int:
    """Return the source's tensor, or a copy of it padded with a value where TFLite's SAME differs from ONNX."""
    if not window.needs_padding:
        return source.index
    (top, bottom), (left, right) = window.pads
    batch, height, width, channels = source.shape
    shape = (batch, top + height + bottom, left + width + right, channels)
    pads = converter.add_integers(np.array([[0, 0], [top, bottom], [left, right], [0, 0]]))
    name, inputs = f"{node.name}/pad", (source.index, pads)
    if value == 0:
        return converter.add_operator("PAD", name, inputs, shape, "PadOptions")
    filler = converter.add_constant(f"{node.name}/pad_value", np.array(value, np.float32))
    return converter.add_operator("PADV2", name, (*inputs, filler), shape, "PadV2Options")
