"""Model files in fewer bits: float16, dynamic range and int8."""

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
from edgenas.export.tflite.layers import operations

_NEAREST = 3


def quantize(
    model: bytes,
    export_format: ExportFormat,
    calibration: Calibration | None = None,
    *,
    keep_float: Sequence[str] = (),
    symmetric: bool = False,
) -> bytes:
    """A float32 file of ``export_format.format`` in ``export_format.precision``; float32 comes back as it is.

    int8 is static and takes the ranges of activations from ``calibration``.
    ONNX keeps a float32 input and output in all precisions; TFLite has integer
    ones in int8. ``keep_float`` are layers, or places such as
    ``stage1.block2.se`` that stand for all layers below, which stay in
    float32. ``symmetric`` gives signed activations with all zero points 0, as
    TensorRT needs, in ONNX int8. Equal arguments give equal bytes.

    Raises UsageError for int8 without calibration, an unknown layer, and
    ``symmetric`` elsewhere; VerificationError for a weight that float16 cannot
    hold; ModelError for a damaged model; MissingExtraError.
    """
    if symmetric and (export_format.format, export_format.precision) != ("onnx", "int8"):
        raise UsageError(f"symmetric integers are for onnx int8 only, but {export_format} was asked for")
    if export_format.precision == "fp32":
        return model
    layers = quantizable_layers(model, export_format)
    kept = frozenset(layers[layer] for layer in select_layers(layers, keep_float))
    if export_format.format == "tflite":
        return quantize_tflite(model, export_format.precision, _needed(export_format, calibration), kept)
    calibration = _needed(export_format, calibration)
    if calibration is None:
        return to_float16(model, kept)
    return quantize_onnx(model, calibration, kept, symmetric)


def quantizable_layers(model: bytes, export_format: ExportFormat) -> dict[str, str]:
    """The layers of a float32 file that can be kept in float, and what the quantiser of its format knows each by."""
    if export_format.format == "tflite":
        return {layer: each.outputs[0] for each in operations(model) for layer in each.layers}
    return {node.name: node.name for node in parse_onnx(model).graph.node}


def float_layers(model: bytes, export_format: ExportFormat) -> tuple[str, ...]:
    """The layers of an int8 file that compute in float, in order; ``is_kept_in_float`` tells whether one was meant to.

    ONNX: the nodes that still do after onnxruntime's optimisation for a CPU.
    TFLite: the operators that touch a float tensor; one that does the work of
    several nodes has their names, joined by ``;``. Raises UsageError for
    another precision and ModelError for a damaged model.
    """
    if export_format.precision != "int8":
        raise UsageError(f"only int8 files can have layers that are still float, but {export_format} was asked for")
    return float_nodes(model) if export_format.format == "onnx" else float_operations(model)


def is_kept_in_float(layer: str, keep_float: Sequence[str]) -> bool:
    """Whether a layer, as ``float_layers`` names it, is one of ``keep_float`` or lies below one."""
    return any(belongs_to(part, place) for part in layer.split(";") for place in keep_float)


def belongs_to(layer: str, place: str) -> bool:
    """Whether a layer is the one called ``place`` or lies below it."""
    return layer == place or layer.startswith((f"{place}.", f"{place}/"))


def select_layers(layers: Iterable[str], keep_float: Sequence[str]) -> frozenset[str]:
    """The layers that ``keep_float`` stands for. Raises UsageError, naming the nearest, for what stands for none."""
    known = list(layers)
    kept: set[str] = set()
    for place in keep_float:
        below = [layer for layer in known if belongs_to(layer, place)]
        if not below:
            close = difflib.get_close_matches(place, known, n=_NEAREST, cutoff=0)
            raise UsageError(f"keep-float: no layer is named {place!r} or lies below it; nearest: {', '.join(close)}")
        kept.update(below)
    return frozenset(kept)


def _needed(export_format: ExportFormat, calibration: Calibration | None) -> Calibration | None:
    """The calibration where the export_format uses one. Raises UsageError when it is missing."""
    if export_format.precision != "int8":
        return None
    if calibration is None:
        raise UsageError(f"{export_format} needs images that show how large activations get: give a calibration")
    return calibration
