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

from edgenas.errors import MissingExtraError, ModelError, VerificationError
from edgenas.export.onnx.session import one_line, split_batches
from edgenas.export.quantize.calibration import Calibration, Ranges
from edgenas.export.quantize.tflite_rewrites import split_hard_swish
from edgenas.export.tflite.interpreter import without_standard_error
from edgenas.export.tflite.layers import half_weights, input_shape, observe_tflite, operations, whole
from edgenas.export.tflite.metadata import LABELS_FILE, with_labels

Floats = npt.NDArray[np.float32]
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
_BITS = 8


def quantize_tflite(model: bytes, precision: str, calibration: Calibration | None, kept: frozenset[str]) -> bytes:
    """The file in ``precision`` of a float32 one; the operators that write a tensor of ``kept`` stay in float32.

    ``fp16`` stores weights in float16 and computes in float32, ``dynamic``
    stores them in int8 and quantises activations as they come, but for
    depthwise convolutions, which are as in ``fp16``, and ``int8``, which needs
    the calibration, has an integer input and output too. Raises
    ModelError when the quantiser refuses the model, VerificationError for a
    weight that float16 cannot hold, and MissingExtraError where the quantiser
    is not installed.
    """
    base = split_hard_swish(model, kept) if precision == "int8" else model
    quantizer = _quantizer(base)
    _add_recipe(quantizer, precision)
    for name in sorted(kept):
        quantizer.update_quantization_recipe(f"^{re.escape(name)};?$", "*", None, "no_quantize")
    ranges = _ranges(base, calibration) if calibration is not None and precision == "int8" else None
    with _silence():
        try:
            result = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
        except (ValueError, RuntimeError, KeyError) as error:
            raise ModelError(f"the model: ai-edge-quantizer refuses it ({one_line(error)})") from None
    quantised = bytes(result.quantized_model)
    for name, weight in half_weights(quantised):
        if not np.isfinite(weight).all():
            raise VerificationError(
                f"{name!r} has values that float16 cannot hold, 65504 at most; export it in float32"
            )
    return _with_labels_of(model, quantised)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The quantiser shows progress and runs an interpreter that greets and warns; none of it can be switched off."""
    from ai_edge_quantizer.utils import progress_utils

    bar = progress_utils.tqdm.tqdm
    interval, bar.monitor_interval = bar.monitor_interval, 0  # else they leave a thread behind
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), without_standard_error():
            warnings.simplefilter("ignore")
            yield
    finally:
        bar.monitor_interval = interval


def _quantizer(model: bytes) -> Any:
    try:
        from ai_edge_quantizer import quantizer
    except ImportError as error:
        raise MissingExtraError(
            f"quantising TFLite needs ai-edge-quantizer, which cannot be imported ({error});"
            " pip install 'edgenas[export]'"
        ) from None
    return quantizer.Quantizer(model)


def _add_recipe(quantizer: Any, precision: str) -> None:
    if precision == "int8":
        quantizer.add_static_config(".*", "*", _BITS, _BITS)
    elif precision == "fp16":
        _store_as_halves(quantizer, "*")
    else:
        quantizer.add_dynamic_config(".*", "*", _BITS)
        # XNNPACK has no depthwise convolution that quantises as it goes, and LiteRT's own doubles the network's time.
        _store_as_halves(quantizer, "DEPTHWISE_CONV_2D")


def _store_as_halves(quantizer: Any, operator: str) -> None:
    from ai_edge_quantizer import qtyping

    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
    )
    quantizer.update_quantization_recipe(".*", operator, config, "float_casting")


def _ranges(model: bytes, calibration: Calibration) -> dict[str, dict[str, Floats]]:
    """The range of each float activation, as ai-edge-quantizer takes them."""
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


def _with_labels_of(original: bytes, model: bytes) -> bytes:
    """The file with the labels that lie behind the original one, if any do."""
    if not zipfile.is_zipfile(io.BytesIO(original)):
        return model
    with zipfile.ZipFile(io.BytesIO(original)) as archive:
        return with_labels(model, archive.read(LABELS_FILE).decode().splitlines())


def float_operations(model: bytes) -> tuple[str, ...]:
    """The nodes of a file with float tensors, in order, joined by ``;`` where one operator does the work of several.

    Conversions do not count, but where they are the model's own input or output.
    """
    found = operations(model)
    read = {name for operation in found for name in operation.inputs}
    made = {name for operation in found for name in operation.outputs}
    layers = (
        ";".join(dict.fromkeys(map(whole, operation.layers)))
        for operation in found
        if operation.is_float
        and (
            operation.kind not in _CONVERSIONS
            or (operation.kind == "QUANTIZE" and not made & set(operation.inputs))
            or (operation.kind == "DEQUANTIZE" and not read & set(operation.outputs))
        )
    )
    return tuple(dict.fromkeys(layers))
