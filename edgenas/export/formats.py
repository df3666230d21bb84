"""The kinds of model file that edgenas writes."""

from __future__ import annotations

from dataclasses import dataclass

from edgenas.errors import UsageError

FORMATS = ("onnx", "tflite")
PRECISIONS = {"onnx": ("fp32", "fp16", "int8"), "tflite": ("fp32", "fp16", "dynamic", "int8")}


@dataclass(frozen=True)
class ExportFormat:
    """A format and a precision that it has. Raises UsageError, listing what exists."""

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
