"""How much each layer of a file in fewer bits differs from the float32 file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgenas.errors import UsageError
from edgenas.export.formats import ExportFormat
from edgenas.export.onnx.session import observe_onnx, parse_onnx
from edgenas.export.quantize.calibration import check_images
from edgenas.export.tflite.layers import observe_tflite, operations, whole

Floats = npt.NDArray[np.float32]
_DEQUANTISED = "_DequantizeLinear_Output"
_UNCHANGED = ("PAD", "PADV2", "RESHAPE", "TRANSPOSE", "Flatten", "Reshape", "Transpose", "Identity", "Squeeze")


@dataclass(frozen=True)
class LayerError:
    """What a layer differs by, as root mean squares over that of its float32 values.

    ``relative_error`` is the whole difference to the float32 file, which
    passes on from layer to layer; ``added_error`` is what is left of it
    without that of its inputs: what the layer itself loses. To keep it in
    float alone wins little of that, since it still reads integers and its
    result becomes integers again; whole places win more.
    """

    layer: str
    relative_error: float
    added_error: float


@dataclass(frozen=True)
class _Layer:
    """A layer of the float32 file: the tensor it writes, as that is called there and in the other file."""

    name: str
    inputs: tuple[str, ...]
    output: str
    counterpart: str | None


def layer_errors(
    reference: bytes, quantized: bytes, export_format: ExportFormat, images: Floats
) -> tuple[LayerError, ...]:
    """How layers of the file ``quantized`` differ from those of the float32 file ``reference`` on images (N, C, r, r).

    Those that add most come first. A layer whose result the file does not have
    because it is fused with the next is left out, and operators that share the
    work of one node are one layer, by its name. Raises UsageError when the
    images do not fit and ModelError for a damaged model.
    """
    check_images(images, "images")
    if export_format.precision == "fp32":
        raise UsageError("layers of a float32 file have no error to report; give a file of fewer bits")
    if export_format.format == "onnx":
        layers, pairs = _onnx_layers(reference, quantized, images)
    else:
        layers, pairs = _tflite_layers(reference, quantized, images)
    return _report(layers, _relative_errors(layers, pairs))


_Pairs = Iterator[tuple[dict[str, Floats], dict[str, Floats]]]


def _onnx_layers(reference: bytes, quantized: bytes, images: Floats) -> tuple[list[_Layer], _Pairs]:
    exact, rounded = parse_onnx(reference), parse_onnx(quantized)
    there = {name for node in rounded.graph.node for name in node.output}
    layers = []
    for node in exact.graph.node:
        names = [name for name in (node.output[0] + _DEQUANTISED, node.output[0]) if name in there]
        wanted = names[0] if names and node.op_type not in _UNCHANGED else None
        layers.append(_Layer(node.name, tuple(node.input), node.output[0], wanted))
    found = [layer for layer in layers if layer.counterpart]
    watched = observe_onnx(exact, [layer.output for layer in found], images)
    return layers, zip(watched, observe_onnx(rounded, [str(layer.counterpart) for layer in found], images), strict=True)


def _tflite_layers(reference: bytes, quantized: bytes, images: Floats) -> tuple[list[_Layer], _Pairs]:
    there = {name for operation in operations(quantized) for name in operation.outputs}
    layers = []
    for operation in operations(reference):
        output, layer = operation.outputs[0], operation.layers[0]
        told = output in there and operation.kind not in _UNCHANGED and layer == whole(layer)
        layers.append(_Layer(layer, operation.inputs, output, output if told else None))
    return layers, zip(observe_tflite(reference, images), observe_tflite(quantized, images), strict=True)


def _relative_errors(layers: list[_Layer], pairs: _Pairs) -> dict[str, float]:
    """By the tensors of the float32 file, those that both files have."""
    found = [layer for layer in layers if layer.counterpart]
    lost = dict.fromkeys((layer.output for layer in found), 0.0)
    whole = dict(lost)
    for exact, rounded in pairs:
        for layer in found:
            values, others = exact.get(layer.output), rounded.get(str(layer.counterpart))
            if values is not None and others is not None:
                lost[layer.output] += float(np.square(values - others, dtype=np.float64).sum())
                whole[layer.output] += float(np.square(values, dtype=np.float64).sum())
    return {name: math.sqrt(lost[name] / whole[name]) for name in lost if whole[name] > 0}


def _report(layers: list[_Layer], errors: dict[str, float]) -> tuple[LayerError, ...]:
    passed = dict(errors)  # with those of fused layers, which pass on what they get
    found = []
    for layer in layers:
        before = max((passed.get(name, 0.0) for name in layer.inputs), default=0.0)
        passed.setdefault(layer.output, before)
        if layer.output in errors:
            error = errors[layer.output]
            found.append(LayerError(layer.name, error, math.sqrt(max(0.0, error**2 - before**2))))
    return tuple(sorted(found, key=lambda each: (-each.added_error, -each.relative_error, each.layer)))
