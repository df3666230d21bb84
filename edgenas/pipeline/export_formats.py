"""Which kind of model file a target runs, and making a file of a kind."""

from __future__ import annotations

from collections.abc import Sequence

from edgenas.devices import Target
from edgenas.errors import UsageError
from edgenas.export import ExportFormat
from edgenas.export.formats import FORMATS, PRECISIONS
from edgenas.export.quantize.calibration import Calibration
from edgenas.export.quantize.quantize import quantize
from edgenas.export.tflite.writer import build_tflite
from edgenas.files import suggest_nearest

Normalisation = tuple[Sequence[float], Sequence[float]]
RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}
_FORMATS = {runtime: file_format for file_format, runtime in RUNTIMES.items()}


def format_of(target: Target) -> ExportFormat:
    """The kind of file that a target runs. Raises UsageError for a runtime that edgenas writes no files for."""
    if target.runtime not in _FORMATS:
        raise UsageError(
            f"edgenas writes no files for runtime {target.runtime!r}{suggest_nearest(target.runtime, [*_FORMATS])}"
        )
    return ExportFormat(_FORMATS[target.runtime], target.precision)


def target_for(target: Target, kind: ExportFormat) -> Target | None:
    """The same device, threads and CPUs, for files of ``kind``; None when its profile has no runtime for them."""
    runtime = RUNTIMES[kind.format]
    if runtime not in target.profile.runtimes:
        return None
    return Target(target.profile, runtime, kind.precision, target.threads, target.affinity)


def all_formats(formats: Sequence[str], precisions: Sequence[str]) -> tuple[list[ExportFormat], list[str]]:
    """Every format with every precision, and a line for each pair that does not exist.

    Raises UsageError for an unknown name and for a precision that none of the formats has.
    """
    kinds, skipped = [], []
    for precision in dict.fromkeys(precisions):
        having = [each for each in dict.fromkeys(formats) if precision in PRECISIONS.get(each, ())]
        for file_format in dict.fromkeys(formats):
            if file_format in FORMATS and file_format not in having and having:
                known = ", ".join(PRECISIONS[file_format])
                skipped.append(f"{file_format} has no precision {precision}, it has {known}: skipped")
            else:
                kinds.append(ExportFormat(file_format, precision))
    return kinds, skipped


def build_file(
    onnx: bytes,
    kind: ExportFormat,
    calibration: Calibration | None = None,
    *,
    labels: Sequence[str] = (),
    normalisation: Normalisation | None = None,
    keep_float: Sequence[str] = (),
    symmetric: bool = False,
) -> tuple[bytes, bytes]:
    """A file of a kind from the network's float32 ONNX file, and the float32 file of the same format.

    TFLite has a place for labels and normalisation, ONNX has none. Raises what
    ``build_tflite`` and ``quantize`` raise.
    """
    base = onnx
    if kind.format == "tflite":
        base = build_tflite(onnx, labels=labels, normalisation=normalisation)
    if kind.precision == "fp32":
        return base, base
    return quantize(base, kind, calibration, keep_float=keep_float, symmetric=symmetric), base
