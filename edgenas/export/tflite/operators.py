"""Converters of ONNX operators to TFLite: a small function for each, in a dictionary."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgenas.export.tflite.affine import SAME, VALID, convert_conv, convert_gemm, pad, read_node_window
from edgenas.export.tflite.converter import NO_ACTIVATION, Converter, NotCoveredError, Shape, Value
from edgenas.export.tflite.fusing import CODES, PLAIN, activation_after, clip_builtin, hard_sigmoid
from edgenas.export.tflite.graph import Array, Node
from edgenas.export.tflite.windows import Window


def _convert_max_pool(converter: Converter, node: Node) -> None:
    source = converter.map_value(node.inputs[0])
    window = read_node_window(node, source, node.attributes["kernel_shape"])
    # Where no value is below 0, zeros leave the maximum as it is, and unlike infinity they can be quantized.
    index = pad(converter, node, source, window, 0.0 if source.positive else -math.inf)
    _add_pool(converter, node, "MAX_POOL_2D", source, index, window)


def _convert_average_pool(converter: Converter, node: Node) -> None:
    source = converter.map_value(node.inputs[0])
    window = read_node_window(node, source, node.attributes["kernel_shape"])
    counted = node.attributes.get("count_include_pad", 0)
    if counted and window.same:
        window = replace(window, same=False)
    if window.needs_padding and (not counted or node.attributes.get("ceil_mode", 0)):
        raise NotCoveredError("averages over windows that TFLite cannot place")
    _add_pool(converter, node, "AVERAGE_POOL_2D", source, pad(converter, node, source, window), window)


def _add_pool(converter: Converter, node: Node, builtin: str, source: Value, index: int, window: Window) -> None:
    if window.dilations != (1, 1):
        raise NotCoveredError("pools with dilations")
    options = {
        "Padding": SAME if window.same else VALID,
        "StrideW": window.strides[1],
        "StrideH": window.strides[0],
        "FilterWidth": window.kernel[1],
        "FilterHeight": window.kernel[0],
    }
    shape = (source.shape[0], *window.out, source.shape[3])
    pooled = converter.convert_node(builtin, node, (index,), shape, "Pool2DOptions", options)
    converter.set_value(node.output, replace(pooled, positive=source.positive))


def _convert_reduce_mean(converter: Converter, node: Node) -> None:
    axes = node.attributes.get("axes")
    if axes is None and len(node.inputs) > 1:
        axes = converter.graph.constants.get(node.inputs[1])
    if axes is None or sorted(int(axis) % 4 for axis in axes) != [2, 3]:
        raise NotCoveredError("averages over other axes than height and width")
    _add_mean(converter, node, keep=bool(node.attributes.get("keepdims", 1)))


def _add_mean(converter: Converter, node: Node, keep: bool) -> None:
    source = converter.map_value(node.inputs[0])
    batch, _, _, channels = source.shape
    inputs = (source.index, converter.add_integers([1, 2]))
    shape = (batch, 1, 1, channels) if keep else (batch, channels)
    converter.convert_node("MEAN", node, inputs, shape, "ReducerOptions", {"KeepDims": keep})


def _convert_add(converter: Converter, node: Node) -> None:
    _add_binary(converter, node, "ADD", [converter.value(name) for name in _variable_inputs(converter, node)])


def _convert_mul(converter: Converter, node: Node) -> None:
    readers = converter.graph.readers.get(node.output, ())
    # A convolution multiplies its weights by the scale at no cost.
    only_convs = node.output != converter.graph.output and all(
        reader.operator == "Conv" and reader.inputs[0] == node.output for reader in readers
    )
    read_value = converter.raw_value if only_convs else converter.value
    sources = [read_value(name) for name in _variable_inputs(converter, node)]
    if any(source.flattened for source in sources):
        sources = [converter.value(name) for name in _variable_inputs(converter, node)]
    _add_binary(converter, node, "MUL", sources)


def _variable_inputs(converter: Converter, node: Node) -> list[str]:
    """Return a node's inputs that are no constants."""
    return [name for name in node.inputs if name not in converter.graph.constants]


def _add_binary(converter: Converter, node: Node, builtin: str, sources: list[Value]) -> None:
    if not sources:
        raise NotCoveredError("combines constants alone")
    rank = len(sources[0].shape)
    shapes, indices = [source.shape for source in sources], [source.index for source in sources]
    for name in node.inputs:
        if name in converter.graph.constants:
            values = _to_layout(converter.graph.constants[name], rank)
            shapes.append(values.shape)
            indices.append(converter.add_constant(name, values))
    scale = math.prod(source.scale for source in sources)
    activation = activation_after(converter, node, PLAIN) if scale == 1 else NO_ACTIVATION
    shape = _broadcast(shapes)
    options = {"FusedActivationFunction": CODES[activation.code]}
    table = "AddOptions" if builtin == "ADD" else "MulOptions"
    result = converter.convert_node(builtin, node, (indices[0], indices[1]), shape, table, options, activation)
    if scale != 1:
        converter.set_value(node.output, replace(result, scale=scale))


def _to_layout(values: Array, rank: int) -> Array:
    """Return a constant in the layout of the maps or rows of ``rank`` that it is broadcast against."""
    if values.dtype != np.float32 or values.ndim > rank:
        raise NotCoveredError(f"has a constant of type {values.dtype} and rank {values.ndim}")
    if rank != 4 or not values.ndim:
        return values
    return values.reshape((1,) * (4 - values.ndim) + values.shape).transpose(0, 2, 3, 1)


def _broadcast(shapes: list[Shape]) -> Shape:
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    sizes = [set(sizes) - {1} for sizes in zip(*padded, strict=True)]
    if any(len(size) > 1 for size in sizes):
        raise NotCoveredError(f"combines tensors of shapes {' and '.join(map(str, shapes))}")
    return tuple(size.pop() if size else 1 for size in sizes)


def _convert_clip(converter: Converter, node: Node) -> None:
    builtin = clip_builtin(converter, node)
    if builtin is None:
        raise NotCoveredError("clips to other limits than (0, 6), (0, 1), (-1, 1) and (0, infinity)")
    _add_unary(converter, node, builtin)


def _add_unary(converter: Converter, node: Node, builtin: str, table: str = "") -> None:
    source = converter.value(node.inputs[0])
    result = converter.convert_node(builtin, node, (source.index,), source.shape, table)
    converter.set_value(node.output, replace(result, positive=builtin.startswith("RELU") and builtin != "RELU_N1_TO_1"))


def _convert_hard_sigmoid(converter: Converter, node: Node) -> None:
    """Write relu6(x * gain + shift), a sixth of which is the result, for a HardSigmoid that no operator fuses."""
    source, activation = converter.value(node.inputs[0]), hard_sigmoid(converter, node)
    index = source.index
    if activation.gain != 1:
        gain = converter.add_constant(f"{node.name}/gain", np.array(activation.gain, np.float32))
        index = converter.add_operator("MUL", f"{node.name}/gained", (index, gain), source.shape, "MulOptions")
    shift = converter.add_constant(f"{node.name}/shift", np.array(activation.shift, np.float32))
    options = {"FusedActivationFunction": CODES["RELU6"]}
    result = converter.convert_node("ADD", node, (index, shift), source.shape, "AddOptions", options)
    converter.set_value(node.output, replace(result, scale=activation.scale, positive=True))


def _convert_flatten(converter: Converter, node: Node) -> None:
    if node.attributes.get("axis", 1) != 1:
        raise NotCoveredError("flattens from another axis than the first")
    _mark_flattened(converter, node)


def _convert_reshape(converter: Converter, node: Node) -> None:
    target, source = converter.graph.constants.get(node.inputs[1]), converter.raw_value(node.inputs[0])
    size = math.prod(source.shape[1:])
    rows = [] if target is None else target.tolist()
    if len(rows) != 2 or rows[0] not in (0, -1, source.shape[0]) or rows[1] not in (-1, size) or rows == [-1, -1]:
        raise NotCoveredError("gives another shape than rows (N, C * H * W)")
    _mark_flattened(converter, node)


def _mark_flattened(converter: Converter, node: Node) -> None:
    """Note that a map stands for rows; a fully connected layer reads it as it is, with reordered weights."""
    source = converter.raw_value(node.inputs[0])
    converter.set_value(node.output, replace(source, flattened=len(source.shape) == 4))


OPERATORS: dict[str, Callable[[Converter, Node], object]] = {
    "Add": _convert_add,
    "AveragePool": _convert_average_pool,
    "Clip": _convert_clip,
    "Conv": convert_conv,
    "Flatten": _convert_flatten,
    "Gemm": convert_gemm,
    "GlobalAveragePool": lambda converter, node: _add_mean(converter, node, keep=True),
    "HardSigmoid": _convert_hard_sigmoid,
    "HardSwish": lambda converter, node: _add_unary(converter, node, "HARD_SWISH", "HardSwishOptions"),
    "Identity": lambda converter, node: converter.set_value(node.output, converter.raw_value(node.inputs[0])),
    "MaxPool": _convert_max_pool,
    "Mul": _convert_mul,
    "ReduceMean": _convert_reduce_mean,
    "Relu": lambda converter, node: _add_unary(converter, node, "RELU"),
    "Reshape": _convert_reshape,
}
