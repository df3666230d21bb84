"""Quantization of float32 model files: float16, dynamic range and int8."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from edgenas.errors import UsageError
from edgenas.export.formats import ExportFormat
from edgenas.export.onnx.session import parse_onnx
from edgenas.export.quantize.calibration import Calibration
from edgenas.export.quantize.onnx_float16 import to_float16
from edgenas.export.quantize.onnx_int8 import float_nodes, quantize_onnx
from edgenas.export.quantize.tflite import float_operations, quantize_tflite
from edgenas.export.tflite.layers import read_operations

_NEAREST_SHOWN = 3


def quantize(
    model: bytes,
    export_format: ExportFormat,
    calibration: Calibration | None = None,
    *,
    keep_float: Sequence[str] = (),
    symmetric: bool = False,
) -> bytes:
    """Convert a float32 file to another precision; equal arguments give equal bytes.

    Args:
        model: a float32 file of ``export_format.format``.
        export_format: format and precision of the result. ``fp32`` returns the file as it is.
        calibration: images for the ranges of activations, needed by int8.
        keep_float: layers that stay in float32, or places such as ``stage1.block2.se`` that stand for all layers
            below them.
        symmetric: signed activations with all zero points 0, as TensorRT needs; for ONNX int8 only.

    Returns:
        The file. ONNX keeps a float32 input and output in all precisions; in int8, TFLite's are integers.

    Raises:
        UsageError: for int8 without calibration, an unknown layer, or ``symmetric`` for another format.
        VerificationError: for a weight that float16 cannot hold.
        ModelError: for a damaged model.
        MissingExtraError: when the quantizer is not installed.
    """
    if symmetric and (export_format.format, export_format.precision) != ("onnx", "int8"):
        raise UsageError(f"symmetric integers are for onnx int8 only, but {export_format} was asked for")
    if export_format.precision == "fp32":
        return model
    if export_format.precision == "int8" and calibration is None:
        raise UsageError(f"{export_format} needs images that show how large activations get: give a calibration")
    layers = quantizable_layers(model, export_format)
    kept = frozenset(layers[layer] for layer in select_layers(layers, keep_float))
    if export_format.format == "tflite":
        return quantize_tflite(model, export_format.precision, calibration, kept)
    if export_format.precision == "fp16":
        return to_float16(model, kept)
    assert calibration is not None
    return quantize_onnx(model, calibration, kept, symmetric)


def quantizable_layers(model: bytes, export_format: ExportFormat) -> dict[str, str]:
    """Return the layers of a float32 file, each with the tensor or node that the format's quantizer knows it by."""
    if export_format.format == "tflite":
        return {layer: operation.outputs[0] for operation in read_operations(model) for layer in operation.layers}
    return {node.name: node.name for node in parse_onnx(model).graph.node}


def float_layers(model: bytes, export_format: ExportFormat) -> tuple[str, ...]:
    """Return the layers of an int8 file that compute in float, in order.

    In ONNX these are the nodes that do after onnxruntime's optimisation for a
    CPU; in TFLite the operators that touch a float tensor. A TFLite operator
    that does the work of several nodes has their names, joined by ``;``.

    Raises:
        UsageError: for another precision.
        ModelError: for a damaged model.
    """
    if export_format.precision != "int8":
        raise UsageError(f"only int8 files can have layers that are still float, but {export_format} was asked for")
    return float_nodes(model) if export_format.format == "onnx" else float_operations(model)


def is_kept_in_float(layer: str, keep_float: Sequence[str]) -> bool:
    """Return True for a layer, as ``float_layers`` names it, that is in ``keep_float`` or below a place in it."""
    return any(belongs_to(name, place) for name in layer.split(";") for place in keep_float)


def belongs_to(layer: str, place: str) -> bool:
    """Return True for the layer called ``place`` and for all layers below it."""
    return layer == place or layer.startswith((f"{place}.", f"{place}/"))


def select_layers(layers: Iterable[str], keep_float: Sequence[str]) -> frozenset[str]:
    """Return the layers that ``keep_float`` stands for.

    Raises:
        UsageError: for a place that stands for no layer, with the nearest ones.
    """
    names = list(layers)
    selected: set[str] = set()
    for place in keep_float:
        below = [layer for layer in names if belongs_to(layer, place)]
        if not below:
            close = difflib.get_close_matches(place, names, n=_NEAREST_SHOWN, cutoff=0)
            raise UsageError(f"keep-float: no layer is named {place!r} or lies below it; nearest: {', '.join(close)}")
        selected.update(below)
    return frozenset(selected)
