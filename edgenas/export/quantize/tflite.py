"""TFLite in float16, dynamic range and int8, by ai-edge-quantizer."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import MissingExtraError, ModelError, VerificationError, one_line
from edgenas.export.onnx.session import split_batches
from edgenas.export.quantize.calibration import Calibration, Ranges
from edgenas.export.quantize.tflite_rewrites import split_hard_swish
from edgenas.export.tflite.interpreter import without_standard_error
from edgenas.export.tflite.layers import TFLiteFile, half_weights, input_shape, observe_tflite, whole_layer
from edgenas.export.tflite.metadata import LABELS_FILE, with_labels

Floats = npt.NDArray[np.float32]
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
_INT8_BITS = 8


def quantize_tflite(
    model: TFLiteFile, precision: str, calibration: Calibration | None, kept: frozenset[str]
) -> TFLiteFile:
    """Convert a float32 file to another precision.

    ``fp16`` stores weights in float16 and computes in float32. ``dynamic``
    stores weights in int8 and quantizes activations at run time; depthwise
    convolutions are as in ``fp16``. ``int8`` has an integer input and output.

    Args:
        model: the TFLite file.
        precision: ``fp16``, ``dynamic`` or ``int8``.
        calibration: images for the ranges of activations; only int8 uses it and needs it.
        kept: tensors whose operators stay in float32.

    Raises:
        ModelError: when ai-edge-quantizer refuses the model.
        VerificationError: for a weight that float16 cannot hold.
        MissingExtraError: when ai-edge-quantizer is not installed.
    """
    base = split_hard_swish(model, kept) if precision == "int8" else model
    quantizer = _open_quantizer(base)
    _configure(quantizer, precision)
    for name in sorted(kept):
        quantizer.update_quantization_recipe(f"^{re.escape(name)};?$", "*", None, "no_quantize")
    ranges = _calibrate(base, calibration) if calibration is not None and precision == "int8" else None
    with _silence():
        try:
            result = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
        except (ValueError, RuntimeError, KeyError) as error:
            raise ModelError(f"the model: ai-edge-quantizer refuses it ({one_line(error)})") from None
    quantized = TFLiteFile(result.quantized_model)
    for name, weight in half_weights(quantized):
        if not np.isfinite(weight).all():
            raise VerificationError(
                f"{name!r} has values that float16 cannot hold, 65504 at most; export it in float32"
            )
    if not zipfile.is_zipfile(io.BytesIO(model)):
        return quantized
    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        return TFLiteFile(with_labels(quantized, archive.read(LABELS_FILE).decode().splitlines()))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppress the quantizer's progress bars and its interpreter's messages, which no option switches off."""
    from ai_edge_quantizer.utils import progress_utils

    bar = progress_utils.tqdm.tqdm
    interval, bar.monitor_interval = bar.monitor_interval, 0  # otherwise they leave a thread behind
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), without_standard_error():
            warnings.simplefilter("ignore")
            yield
    finally:
        bar.monitor_interval = interval


def _open_quantizer(model: bytes) -> Any:
    try:
        from ai_edge_quantizer import quantizer
    except ImportError as error:
        raise MissingExtraError(
            f"quantizing TFLite needs ai-edge-quantizer, which cannot be imported ({error});"
            " pip install 'edgenas[export]'"
        ) from None
    return quantizer.Quantizer(model)


def _configure(quantizer: Any, precision: str) -> None:
    """Set the quantizer's recipe for a precision."""
    if precision == "int8":
        quantizer.add_static_config(".*", "*", _INT8_BITS, _INT8_BITS)
    elif precision == "fp16":
        _store_float16(quantizer, "*")
    else:
        quantizer.add_dynamic_config(".*", "*", _INT8_BITS)
        # XNNPACK has no dynamic depthwise convolution, and LiteRT's own doubles the network's latency.
        _store_float16(quantizer, "DEPTHWISE_CONV_2D")


def _store_float16(quantizer: Any, operator: str) -> None:
    from ai_edge_quantizer import qtyping

    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
    )
    quantizer.update_quantization_recipe(".*", operator, config, "float_casting")


def _calibrate(model: TFLiteFile, calibration: Calibration) -> dict[str, dict[str, Floats]]:
    """Return the range of each float activation over the calibration images, as ai-edge-quantizer takes it."""
    images = calibration.images
    ranges = Ranges(calibration.method, len(split_batches(images, input_shape(model))))
    shapes: dict[str, tuple[int, ...]] = {}
    for values in observe_tflite(model, images):
        for name, tensor in values.items():
            ranges.add(name, tensor)
            shapes[name] = (1,) * tensor.ndim
    return {
        name: {"min": np.full(shapes[name], low, np.float32), "max": np.full(shapes[name], high, np.float32)}
        for name, (low, high) in ranges.result().items()
    }


def float_operations(model: TFLiteFile) -> tuple[str, ...]:
    """Return the nodes whose operators have float tensors, in order; several nodes of one are joined by ``;``.

    Conversions do not count, except those of the model's own input and output.
    """
    operations = model.operations
    read = {name for operation in operations for name in operation.inputs}
    written = {name for operation in operations for name in operation.outputs}
    layers = (
        ";".join(dict.fromkeys(map(whole_layer, operation.layers)))
        for operation in operations
        if operation.is_float
        and (
            operation.builtin not in _CONVERSIONS
            or (operation.builtin == "QUANTIZE" and not written & set(operation.inputs))
            or (operation.builtin == "DEQUANTIZE" and not read & set(operation.outputs))
        )
    )
    return tuple(dict.fromkeys(layers))
