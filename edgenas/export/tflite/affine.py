"""Convolutions and fully connected layers in TFLite: weights in its layout, and padding as ONNX has it."""

from __future__ import annotations

import numpy as np

from edgenas.export.tflite.converter import Activation, Converter, NotCoveredError, Shape, Value
from edgenas.export.tflite.fusing import AFFINE, CODES, activation_after
from edgenas.export.tflite.graph import Array, Node
from edgenas.export.tflite.windows import Window, window

SAME, VALID = 0, 1  # Padding of the schema


def convolution(converter: Converter, node: Node) -> None:
    """Conv: depthwise or not, with SAME, VALID or padded beforehand, and with the activation after it."""
    source, kernel = converter.raw(node.inputs[0]), converter.weights(node, 1, 4)
    if len(source.shape) != 4 or source.flattened:
        raise NotCoveredError("needs a map (N, C, H, W), but reads rows")
    channels, groups = source.shape[3], node.attributes.get("group", 1)
    slide = window_of(node, source, kernel.shape[2:])
    activation = activation_after(converter, node, AFFINE)
    kernel, bias = _affine(kernel, _bias(converter, node, len(kernel)), source.scale, activation)
    options = {
        "Padding": SAME if slide.same else VALID,
        "StrideW": slide.strides[1],
        "StrideH": slide.strides[0],
        "FusedActivationFunction": CODES[activation.code],
        "DilationWFactor": slide.dilations[1],
        "DilationHFactor": slide.dilations[0],
    }
    depthwise = groups == channels > 1
    if depthwise:
        options["DepthMultiplier"] = len(kernel) // channels
    layout = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    inputs = (
        padded(converter, node, source, slide),
        converter.constant(node.inputs[1], kernel.transpose(layout)),
        converter.constant(_bias_name(node), bias),
    )
    kind, table = ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if depthwise else ("CONV_2D", "Conv2DOptions")
    converter.emit(kind, node, inputs, (source.shape[0], *slide.out, len(kernel)), table, options, activation)


def fully_connected(converter: Converter, node: Node) -> None:
    """Gemm of rows, or of a map that was flattened: its weights are then in the map's order."""
    source, kernel = converter.raw(node.inputs[0]), converter.weights(node, 1, 2)
    if not (len(source.shape) == 2 or source.flattened) or node.attributes.get("transA", 0):
        raise NotCoveredError("needs rows, not transposed")
    if not node.attributes.get("transB", 0):
        kernel = kernel.T
    if source.flattened:
        _, height, width, channels = source.shape
        kernel = kernel.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(kernel), -1)
    activation = activation_after(converter, node, AFFINE)
    bias = _bias(converter, node, len(kernel)) * np.float32(node.attributes.get("beta", 1.0))
    kernel, bias = _affine(kernel, bias, source.scale * node.attributes.get("alpha", 1.0), activation)
    weights = converter.constant(node.inputs[1], kernel)
    inputs = (source.index, weights, converter.constant(_bias_name(node), bias))
    options = {"FusedActivationFunction": CODES[activation.code]}
    shape = (source.shape[0], len(kernel))
    converter.emit("FULLY_CONNECTED", node, inputs, shape, "FullyConnectedOptions", options, activation)


def _affine(kernel: Array, bias: Array, scale: float, activation: Activation) -> tuple[Array, Array]:
    """Weights for a source that is ``scale`` times what the tensor holds, with the activation's gain and shift."""
    gain = activation.gain
    if scale * gain != 1:
        kernel = kernel * np.float32(scale * gain)
    return kernel, bias * np.float32(gain) + np.float32(activation.shift)


def _bias(converter: Converter, node: Node, size: int) -> Array:
    if len(node.inputs) < 3 or not node.inputs[2]:
        return np.zeros(size, np.float32)
    bias = converter.graph.constants.get(node.inputs[2])
    if bias is None or bias.dtype != np.float32 or bias.size not in (1, size):
        raise NotCoveredError(f"the bias must be a float32 constant of {size} numbers")
    return np.broadcast_to(bias.reshape(-1), size)


def _bias_name(node: Node) -> str:
    return node.inputs[2] if len(node.inputs) > 2 and node.inputs[2] else f"{node.name}.bias"


def window_of(node: Node, source: Value, kernel: Shape) -> Window:
    """The window that a node slides over its source."""
    slide = window((source.shape[1], source.shape[2]), kernel, node.attributes)
    if slide is None:
        raise NotCoveredError("needs a two-dimensional window with pads written out")
    return slide


def padded(converter: Converter, node: Node, source: Value, slide: Window, value: float = 0.0) -> int:
    """The source's tensor, or where SAME does not pad as ONNX does, that of a copy padded with a value."""
    if not slide.padded:
        return source.index
    (top, bottom), (left, right) = slide.pads
    batch, height, width, channels = source.shape
    shape = (batch, top + height + bottom, left + width + right, channels)
    pads = converter.integers(np.array([[0, 0], [top, bottom], [left, right], [0, 0]]))
    name, inputs = f"{node.name}/pad", (source.index, pads)
    if value == 0:
        return converter.append("PAD", name, inputs, shape, "PadOptions")
    filler = converter.constant(f"{node.name}/pad_value", np.array(value, np.float32))
    return converter.append("PADV2", name, (*inputs, filler), shape, "PadV2Options")
