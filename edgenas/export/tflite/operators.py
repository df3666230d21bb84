"""How each ONNX operator is written in TFLite: one small function each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgenas.export.tflite.affine import SAME, VALID, convolution, fully_connected, padded, window_of
from edgenas.export.tflite.converter import NO_ACTIVATION, Converter, NotCoveredError, Shape, Value
from edgenas.export.tflite.fusing import CODES, PLAIN, activation_after, clip_kind, hard_sigmoid
from edgenas.export.tflite.graph import Array, Node
from edgenas.export.tflite.windows import Window


def _max_pool(converter: Converter, node: Node) -> None:
    source = converter.map(node.inputs[0])
    slide = window_of(node, source, node.attributes["kernel_shape"])
    # Zeros change no maximum of what is not below 0, and can be quantised, which infinity cannot.
    index = padded(converter, node, source, slide, 0.0 if source.positive else -math.inf)
    _pool(converter, node, "MAX_POOL_2D", source, index, slide)


def _average_pool(converter: Converter, node: Node) -> None:
    source = converter.map(node.inputs[0])
    slide = window_of(node, source, node.attributes["kernel_shape"])
    counted = node.attributes.get("count_include_pad", 0)
    if counted and slide.same:
        slide = replace(slide, same=False)
    if slide.padded and (not counted or node.attributes.get("ceil_mode", 0)):
        raise NotCoveredError("averages over windows that TFLite cannot place")
    _pool(converter, node, "AVERAGE_POOL_2D", source, padded(converter, node, source, slide), slide)


def _pool(converter: Converter, node: Node, kind: str, source: Value, index: int, slide: Window) -> None:
    if slide.dilations != (1, 1):
        raise NotCoveredError("pools with dilations")
    options = {
        "Padding": SAME if slide.same else VALID,
        "StrideW": slide.strides[1],
        "StrideH": slide.strides[0],
        "FilterWidth": slide.kernel[1],
        "FilterHeight": slide.kernel[0],
    }
    shape = (source.shape[0], *slide.out, source.shape[3])
    pooled = converter.emit(kind, node, (index,), shape, "Pool2DOptions", options)
    converter.put(node.output, replace(pooled, positive=source.positive))


def _global_average_pool(converter: Converter, node: Node) -> None:
    _mean(converter, node, keep=True)


def _reduce_mean(converter: Converter, node: Node) -> None:
    axes = node.attributes.get("axes")
    if axes is None and len(node.inputs) > 1:
        axes = converter.graph.constants.get(node.inputs[1])
    if axes is None or sorted(int(axis) % 4 for axis in axes) != [2, 3]:
        raise NotCoveredError("averages over other axes than height and width")
    _mean(converter, node, keep=bool(node.attributes.get("keepdims", 1)))


def _mean(converter: Converter, node: Node, keep: bool) -> None:
    source = converter.map(node.inputs[0])
    batch, _, _, channels = source.shape
    inputs = (source.index, converter.integers([1, 2]))
    shape = (batch, 1, 1, channels) if keep else (batch, channels)
    converter.emit("MEAN", node, inputs, shape, "ReducerOptions", {"KeepDims": keep})


def _add(converter: Converter, node: Node) -> None:
    _binary(converter, node, "ADD", [converter.value(name) for name in _operands(converter, node)])


def _mul(converter: Converter, node: Node) -> None:
    readers = converter.graph.readers.get(node.output, ())
    # A convolution takes a scale into its weights, so that nothing is left to compute.
    passes = node.output != converter.graph.output and all(
        reader.operator == "Conv" and reader.inputs[0] == node.output for reader in readers
    )
    take = converter.raw if passes else converter.value
    sources = [take(name) for name in _operands(converter, node)]
    if any(source.flattened for source in sources):
        sources = [converter.value(name) for name in _operands(converter, node)]
    _binary(converter, node, "MUL", sources)


def _operands(converter: Converter, node: Node) -> list[str]:
    """A node's inputs that are no constants."""
    return [name for name in node.inputs if name not in converter.graph.constants]


def _binary(converter: Converter, node: Node, kind: str, sources: list[Value]) -> None:
    if not sources:
        raise NotCoveredError("combines constants alone")
    rank = len(sources[0].shape)
    shapes, indices = [source.shape for source in sources], [source.index for source in sources]
    for name in node.inputs:
        if name in converter.graph.constants:
            values = _in_layout(converter.graph.constants[name], rank)
            shapes.append(values.shape)
            indices.append(converter.constant(name, values))
    scale = math.prod(source.scale for source in sources)
    activation = activation_after(converter, node, PLAIN) if scale == 1 else NO_ACTIVATION
    shape = _broadcast(shapes)
    options = {"FusedActivationFunction": CODES[activation.code]}
    table = "AddOptions" if kind == "ADD" else "MulOptions"
    result = converter.emit(kind, node, (indices[0], indices[1]), shape, table, options, activation)
    if scale != 1:
        converter.put(node.output, replace(result, scale=scale))


def _in_layout(values: Array, rank: int) -> Array:
    """A constant that is broadcast against maps or rows, in their layout."""
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


def _relu(converter: Converter, node: Node) -> None:
    _unary(converter, node, "RELU")


def _clip(converter: Converter, node: Node) -> None:
    kind = clip_kind(converter, node)
    if kind is None:
        raise NotCoveredError("clips to other limits than (0, 6), (0, 1), (-1, 1) and (0, infinity)")
    _unary(converter, node, kind)


def _hard_swish(converter: Converter, node: Node) -> None:
    _unary(converter, node, "HARD_SWISH", "HardSwishOptions")


def _unary(converter: Converter, node: Node, kind: str, table: str = "") -> None:
    source = converter.value(node.inputs[0])
    result = converter.emit(kind, node, (source.index,), source.shape, table)
    converter.put(node.output, replace(result, positive=kind.startswith("RELU") and kind != "RELU_N1_TO_1"))


def _hard_sigmoid(converter: Converter, node: Node) -> None:
    """Where no convolution before it does it: relu6(x * gain + shift), a sixth of which is the result."""
    source, activation = converter.value(node.inputs[0]), hard_sigmoid(converter, node)
    index = source.index
    if activation.gain != 1:
        gain = converter.constant(f"{node.name}/gain", np.array(activation.gain, np.float32))
        index = converter.append("MUL", f"{node.name}/gained", (index, gain), source.shape, "MulOptions")
    shift = converter.constant(f"{node.name}/shift", np.array(activation.shift, np.float32))
    options = {"FusedActivationFunction": CODES["RELU6"]}
    result = converter.emit("ADD", node, (index, shift), source.shape, "AddOptions", options)
    converter.put(node.output, replace(result, scale=activation.scale, positive=True))


def _flatten(converter: Converter, node: Node) -> None:
    if node.attributes.get("axis", 1) != 1:
        raise NotCoveredError("flattens from another axis than the first")
    _as_rows(converter, node)


def _reshape(converter: Converter, node: Node) -> None:
    target, source = converter.graph.constants.get(node.inputs[1]), converter.raw(node.inputs[0])
    size = math.prod(source.shape[1:])
    rows = [] if target is None else target.tolist()
    if len(rows) != 2 or rows[0] not in (0, -1, source.shape[0]) or rows[1] not in (-1, size) or rows == [-1, -1]:
        raise NotCoveredError("gives another shape than rows (N, C * H * W)")
    _as_rows(converter, node)


def _as_rows(converter: Converter, node: Node) -> None:
    """Nothing is moved yet: a fully connected layer reads maps too, with its weights in their order."""
    source = converter.raw(node.inputs[0])
    converter.put(node.output, replace(source, flattened=len(source.shape) == 4))


def _identity(converter: Converter, node: Node) -> None:
    converter.put(node.output, converter.raw(node.inputs[0]))


OPERATORS: dict[str, Callable[[Converter, Node], None]] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Conv": convolution,
    "Flatten": _flatten,
    "Gemm": fully_connected,
    "GlobalAveragePool": _global_average_pool,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Identity": _identity,
    "MaxPool": _max_pool,
    "Mul": _mul,
    "ReduceMean": _reduce_mean,
    "Relu": _relu,
    "Reshape": _reshape,
}
