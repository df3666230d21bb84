"""The formats and precisions of the model files that edgenas writes."""

from __future__ import annotations

from dataclasses import dataclass

from edgenas.errors import UsageError

FORMATS = ("onnx", "tflite")
PRECISIONS = {"onnx": ("fp32", "fp16", "int8"), "tflite": ("fp32", "fp16", "dynamic", "int8")}


@dataclass(frozen=True)
class ExportFormat:
    """The format and the precision of a model file.

    Args:
        format: ``onnx`` or ``tflite``.
        precision: ``fp32``, ``fp16`` or ``int8``, or ``dynamic`` in TFLite.

    Raises:
        UsageError: for an unknown format, or a precision that the format does not have; the message lists those it has.

    Example:
        >>> from edgenas import ExportFormat
        >>> print(ExportFormat("tflite", "int8"))
        tflite-int8
    """

    format: str = "onnx"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"unknown format {self.format!r}; known are {', '.join(FORMATS)}")
        if self.precision not in PRECISIONS[self.format]:
            known = ", ".join(PRECISIONS[self.format])
            raise UsageError(f"{self.format} has no precision {self.precision!r}; it has {known}")

    def __str__(self) -> str:
        return f"{self.format}-{self.precision}"
