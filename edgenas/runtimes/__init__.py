"""Runtimes, one file each: the format and precisions of their files, how these are made, and what devices need."""

from __future__ import annotations

from edgenas.runtimes.contract import FLOAT32, Precision, Runtime, SourceModel
from edgenas.runtimes.formats import (
    ExportFormat,
    all_formats,
    all_runtimes,
    file_formats,
    is_runtime,
    load_runtime,
    runtime_of_format,
    runtime_of_suffix,
    target_precisions,
    variants_by_purpose,
)
from edgenas.runtimes.interface import ModelInterface, ModelSignature, TensorSpec

__all__ = [
    "FLOAT32",
    "ExportFormat",
    "ModelInterface",
    "ModelSignature",
    "Precision",
    "Runtime",
    "SourceModel",
    "TensorSpec",
    "all_formats",
    "all_runtimes",
    "file_formats",
    "is_runtime",
    "load_runtime",
    "runtime_of_format",
    "runtime_of_suffix",
    "target_precisions",
    "variants_by_purpose",
]
