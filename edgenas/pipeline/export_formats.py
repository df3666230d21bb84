"""Between targets and file formats: the format that a target runs, and a file of a format."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgenas.devices import Target
from edgenas.errors import UsageError
from edgenas.export import ExportFormat, build_onnx, random_weights
from edgenas.export.formats import FORMATS, PRECISIONS
from edgenas.export.quantize.calibration import Calibration
from edgenas.export.quantize.quantize import quantize
from edgenas.export.tflite.writer import build_tflite
from edgenas.files import format_suggestion
from edgenas.space import Architecture

Normalisation = tuple[Sequence[float], Sequence[float]]
RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}
_FORMATS = {runtime: file_format for file_format, runtime in RUNTIMES.items()}


def format_of(target: Target) -> ExportFormat:
    """Return the file format that a target runs; UsageError for a runtime that edgenas writes no files for."""
    if target.runtime not in _FORMATS:
        raise UsageError(
            f"edgenas writes no files for runtime {target.runtime!r}{format_suggestion(target.runtime, [*_FORMATS])}"
        )
    return ExportFormat(_FORMATS[target.runtime], target.precision)


def target_for(target: Target, export_format: ExportFormat) -> Target | None:
    """Return the target with the same device, threads and CPUs for another format; None without a runtime for it."""
    runtime = RUNTIMES[export_format.format]
    if runtime not in target.profile.runtimes:
        return None
    return Target(target.profile, runtime, export_format.precision, target.threads, target.affinity)


def combine_formats(file_formats: Sequence[str], precisions: Sequence[str]) -> tuple[list[ExportFormat], list[str]]:
    """Return every file format with every precision, and a message for each pair that does not exist.

    Raises UsageError for an unknown name and for a precision that none of the formats has.
    """
    formats, skipped = [], []
    for precision in dict.fromkeys(precisions):
        supporting = [each for each in dict.fromkeys(file_formats) if precision in PRECISIONS.get(each, ())]
        for file_format in dict.fromkeys(file_formats):
            if file_format in FORMATS and file_format not in supporting and supporting:
                known = ", ".join(PRECISIONS[file_format])
                skipped.append(f"{file_format} has no precision {precision}, it has {known}: skipped")
            else:
                formats.append(ExportFormat(file_format, precision))
    return formats, skipped


def build_file(
    onnx: bytes,
    export_format: ExportFormat,
    calibration: Calibration | None = None,
    *,
    labels: Sequence[str] = (),
    normalisation: Normalisation | None = None,
    keep_float: Sequence[str] = (),
    symmetric: bool = False,
) -> tuple[bytes, bytes]:
    """Return a file of a format from a float32 ONNX file, and the float32 file of the same format.

    Labels and normalisation go into TFLite's metadata; ONNX has no place for
    them. Raises what ``build_tflite`` and ``quantize`` raise.
    """
    base = onnx
    if export_format.format == "tflite":
        base = build_tflite(onnx, labels=labels, normalisation=normalisation)
    if export_format.precision == "fp32":
        return base, base
    return quantize(base, export_format, calibration, keep_float=keep_float, symmetric=symmetric), base


def write_random_file(architecture: Architecture, export_format: ExportFormat) -> bytes:
    """Return a subnet's file with random weights: latency depends neither on their values nor on the noise."""
    in_shape = next(iter(architecture.parts.values())).in_shape
    noise = np.random.default_rng(0).standard_normal((1, *in_shape), np.float32)
    calibration = Calibration(noise, "minmax") if export_format.precision == "int8" else None
    return build_file(build_onnx(architecture, random_weights(architecture)), export_format, calibration)[0]
