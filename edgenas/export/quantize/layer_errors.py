"""The error of each layer of a quantized file against the float32 file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgenas.export.onnx.session import observe_onnx
from edgenas.export.tflite.layers import TFLiteFile, observe_tflite, whole_layer

if TYPE_CHECKING:
    import onnx

Floats = npt.NDArray[np.float32]
_DEQUANTIZED_SUFFIX = "_DequantizeLinear_Output"
_MOVES = ("PAD", "PADV2", "RESHAPE", "TRANSPOSE", "Flatten", "Reshape", "Transpose", "Identity", "Squeeze")


@dataclass(frozen=True)
class LayerError:
    """The error of a layer's output, as root mean square over that of its float32 values.

    Keeping one layer in float removes little of its ``added_error``, since it
    still reads integers and its output becomes integers again; keeping a whole
    place removes more.

    Attributes:
        layer: name of the layer.
        relative_error: difference to the float32 file, including errors passed on by earlier layers.
        added_error: the part of it that the layer's inputs do not explain.
    """

    layer: str
    relative_error: float
    added_error: float


@dataclass(frozen=True)
class _Layer:
    """A layer of the float32 file; ``counterpart`` is the name of its output in the quantized file, if it has it."""

    name: str
    inputs: tuple[str, ...]
    output: str
    counterpart: str | None


_Values = dict[str, Floats]
_Pairs = Iterator[tuple[_Values, _Values]]


def onnx_layer_errors(reference: onnx.ModelProto, quantized: onnx.ModelProto, images: Floats) -> tuple[LayerError, ...]:
    """Return the error of each layer of a quantized ONNX model against the float32 one, the most added error first."""
    outputs = {name for node in quantized.graph.node for name in node.output}
    layers = []
    for node in reference.graph.node:
        names = [name for name in (node.output[0] + _DEQUANTIZED_SUFFIX, node.output[0]) if name in outputs]
        counterpart = names[0] if names and node.op_type not in _MOVES else None
        layers.append(_Layer(node.name, tuple(node.input), node.output[0], counterpart))
    shared = [layer for layer in layers if layer.counterpart]
    float_values = observe_onnx(reference, [layer.output for layer in shared], images)
    quantized_values = observe_onnx(quantized, [str(layer.counterpart) for layer in shared], images)
    return _separate_errors(layers, zip(float_values, quantized_values, strict=True))


def tflite_layer_errors(reference: TFLiteFile, quantized: TFLiteFile, images: Floats) -> tuple[LayerError, ...]:
    """Return the error of each layer of a quantized TFLite file against the float32 one, the most added error first."""
    outputs = {name for operation in quantized.operations for name in operation.outputs}
    layers = []
    for operation in reference.operations:
        output, layer = operation.outputs[0], operation.layers[0]
        comparable = output in outputs and operation.builtin not in _MOVES and layer == whole_layer(layer)
        layers.append(_Layer(layer, operation.inputs, output, output if comparable else None))
    pairs = zip(observe_tflite(reference, images), observe_tflite(quantized, images), strict=True)
    return _separate_errors(layers, pairs)


def _relative_errors(layers: list[_Layer], pairs: _Pairs) -> dict[str, float]:
    """Return the relative error of each tensor of the float32 file that the quantized file has too."""
    shared = [layer for layer in layers if layer.counterpart]
    squared_error = dict.fromkeys((layer.output for layer in shared), 0.0)
    squared_value = dict(squared_error)
    for float_values, quantized_values in pairs:
        for layer in shared:
            exact, rounded = float_values.get(layer.output), quantized_values.get(str(layer.counterpart))
            if exact is not None and rounded is not None:
                squared_error[layer.output] += float(np.square(exact - rounded, dtype=np.float64).sum())
                squared_value[layer.output] += float(np.square(exact, dtype=np.float64).sum())
    return {
        name: math.sqrt(squared_error[name] / squared_value[name]) for name in squared_error if squared_value[name] > 0
    }


def _separate_errors(layers: list[_Layer], pairs: _Pairs) -> tuple[LayerError, ...]:
    """Separate the error that each layer adds from that of its inputs; fused layers only pass theirs on.

    ``pairs`` are the values of the float32 file and of the quantized one, batch by batch.
    """
    errors = _relative_errors(layers, pairs)
    output_errors = dict(errors)
    separated = []
    for layer in layers:
        input_error = max((output_errors.get(name, 0.0) for name in layer.inputs), default=0.0)
        output_errors.setdefault(layer.output, input_error)
        if layer.output in errors:
            error = errors[layer.output]
            separated.append(LayerError(layer.name, error, math.sqrt(max(0.0, error**2 - input_error**2))))
    return tuple(sorted(separated, key=lambda error: (-error.added_error, -error.relative_error, error.layer)))
