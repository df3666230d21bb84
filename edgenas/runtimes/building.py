"""Making model files: from a subnet to a file of a format, and what quantizing changed in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgenas.errors import UsageError
from edgenas.runtimes.contract import FLOAT32, SourceModel
from edgenas.runtimes.formats import ExportFormat

if TYPE_CHECKING:
    from edgenas.export.quantize.calibration import Calibration
    from edgenas.export.quantize.layer_errors import LayerError
    from edgenas.runtimes.contract import Floats
    from edgenas.space import Architecture


def write_random_file(architecture: Architecture, export_format: ExportFormat) -> bytes:
    """Return a subnet's file with random weights: latency depends neither on their values nor on the noise."""
    import numpy as np

    from edgenas.export import build_onnx, random_weights
    from edgenas.export.quantize.calibration import Calibration

    noise = np.random.default_rng(0).standard_normal((1, *architecture.input_shape), np.float32)
    calibration = Calibration(noise, "minmax") if export_format.is_calibrated else None
    source = SourceModel(build_onnx(architecture, random_weights(architecture)))
    return quantize(source.float_file(export_format.runtime), export_format, calibration)


def quantize(
    model: bytes,
    export_format: ExportFormat,
    calibration: Calibration | None = None,
    *,
    keep_float: Sequence[str] = (),
) -> bytes:
    """Convert a float32 file to another precision; equal arguments give equal bytes.

    Args:
        model: a float32 file of ``export_format.format``.
        export_format: format and precision of the result. ``fp32`` returns the file as it is.
        calibration: images for the ranges of activations, needed by int8.
        keep_float: layers that stay in float32, or places such as ``stage1.block2.se`` that stand for all layers
            whose names begin with them.

    Returns:
        The file, loaded by its runtime. ONNX keeps a float32 input and output in all precisions; in int8, TFLite's are
        integers.

    Raises:
        UsageError: for int8 without calibration, or an unknown layer.
        VerificationError: for a weight that float16 cannot hold.
        ModelError: for a damaged model.
        MissingExtraError: when the quantizer is not installed.
    """
    from edgenas.export.quantize.layer_selection import select_layers

    runtime = export_format.runtime
    model = runtime.load(model)
    if export_format.precision == FLOAT32:
        return model
    if export_format.is_calibrated and calibration is None:
        raise UsageError(f"{export_format} needs images that show how large activations get: give a calibration")
    layers = runtime.quantizable_layers(model)
    kept = frozenset(layers[layer] for layer in select_layers(layers, keep_float))
    return runtime.load(runtime.convert(model, export_format.precision, calibration, kept))


def float_layers(model: bytes, export_format: ExportFormat) -> tuple[str, ...]:
    """Return the layers of an int8 file that compute in float, in order.

    In ONNX these are the nodes that do after onnxruntime's optimisation for a
    CPU; in TFLite the operators that touch a float tensor. A TFLite operator
    that does the work of several nodes has their names, joined by ``;``.

    Raises:
        UsageError: for another precision.
        ModelError: for a damaged model.
    """
    if not export_format.is_calibrated:
        raise UsageError(f"only int8 files can have layers that are still float, but {export_format} was asked for")
    return export_format.runtime.float_layers(model)


def layer_errors(
    reference: bytes, quantized: bytes, export_format: ExportFormat, images: Floats
) -> tuple[LayerError, ...]:
    """Measure the error of each layer of a quantized file, the largest ``added_error`` first.

    A layer whose output is fused away in the quantized file is left out.
    Operators that share the work of one node are one layer with its name.

    Args:
        reference: the float32 file.
        quantized: the file in fewer bits.
        export_format: format and precision of ``quantized``.
        images: float32 (N, C, H, W).

    Raises:
        UsageError: when the images do not fit, or for fp32.
        ModelError: for a damaged model.
    """
    from edgenas.export.quantize.calibration import check_images

    check_images(images, "images")
    if export_format.precision == FLOAT32:
        raise UsageError("layers of a float32 file have no error to report; give a file of fewer bits")
    return export_format.runtime.layer_errors(reference, quantized, images)
