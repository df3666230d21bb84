"""Runtimes by name and by file format, and the formats and precisions of the model files that edgenas writes."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from edgenas.errors import UsageError
from edgenas.registry import RUNTIMES
from edgenas.runtimes.contract import FLOAT32, Precision, Runtime

# The order in which precisions are listed; a runtime may add others.
_USUAL_PRECISIONS = (FLOAT32, "fp16", "dynamic", "int8")


@functools.cache
def _instance(runtime: type[Runtime]) -> Runtime:
    return runtime()


def all_runtimes() -> list[Runtime]:
    """Return all runtimes, those of edgenas first."""
    return [_instance(runtime) for runtime in RUNTIMES.load_all().values()]


def load_runtime(name: str, refusal: str = "") -> Runtime:
    """Return a runtime by name.

    Args:
        name: Its name in profiles.
        refusal: The words before an unknown name, by default ``unknown runtime``.

    Raises:
        UsageError: There is none, with a list of those that exist.
    """
    return _instance(RUNTIMES.load(name, refusal=refusal))


def is_runtime(name: str) -> bool:
    """Return True for the name of a runtime; a profile may name others."""
    return name in RUNTIMES.names()


def file_formats() -> list[str]:
    """Return the formats of model files, that of the default runtime first."""
    return [runtime.file_format for runtime in all_runtimes()]


def runtime_of_format(file_format: str) -> Runtime:
    """Return the runtime that runs files of a format; UsageError for an unknown format, with the known ones."""
    for runtime in all_runtimes():
        if runtime.file_format == file_format:
            return runtime
    raise UsageError(f"unknown format {file_format!r}; known are {', '.join(file_formats())}")


def runtime_of_suffix(suffix: str) -> Runtime | None:
    """Return the runtime that runs files with a suffix, such as ``.onnx``; None without one."""
    return next((runtime for runtime in all_runtimes() if runtime.suffix == suffix), None)


def target_precisions() -> list[str]:
    """Return the precisions that a target may have: those of all runtimes, without variants of one."""
    every = [precision for runtime in all_runtimes() for precision in runtime.target_precisions]
    return list(dict.fromkeys([*_USUAL_PRECISIONS, *every]))


@dataclass(frozen=True)
class ExportFormat:
    """The format and the precision of a model file.

    Args:
        format: ``onnx`` or ``tflite``, or the format of an added runtime.
        precision: ``fp32``, ``fp16`` or ``int8``; ``dynamic`` in TFLite; ``int8-tensorrt`` in ONNX, integers with all
            zero points 0.

    Raises:
        UsageError: for an unknown format, or a precision that the format does not have; the message lists those it has.

    Example:
        >>> from edgenas import ExportFormat
        >>> print(ExportFormat("tflite", "int8"))
        tflite-int8
    """

    format: str = "onnx"
    precision: str = FLOAT32

    def __post_init__(self) -> None:
        if not isinstance(self.precision, str) or self.precision not in self.runtime.precisions_by_name:
            known = ", ".join(self.runtime.target_precisions)
            raise UsageError(f"{self.format} has no precision {self.precision!r}; it has {known}")

    def __str__(self) -> str:
        return f"{self.format}-{self.precision}"

    @property
    def runtime(self) -> Runtime:
        """The runtime that runs such files."""
        return runtime_of_format(self.format)

    @property
    def details(self) -> Precision:
        """What is known of its precision."""
        return self.runtime.precisions_by_name[self.precision]

    @property
    def is_calibrated(self) -> bool:
        """True where activations are integers, whose ranges come from images."""
        return self.details.calibrated

    @property
    def parity_precision(self) -> str:
        """The precision whose limits such a file's difference to PyTorch must keep."""
        return self.details.parity or self.stored.precision

    @property
    def stored(self) -> ExportFormat:
        """The format by the file's element types alone; for a variant, that of which it is one."""
        return ExportFormat(self.format, self.details.variant_of or self.precision)

    def made_for(self, purpose: str) -> ExportFormat | None:
        """Return the variant of this format that is made for a purpose, such as ``tensorrt``; None without one."""
        for precision in self.runtime.precisions:
            if precision.made_for == purpose and precision.variant_of == self.precision:
                return ExportFormat(self.format, precision.name)
        return None


def all_formats() -> list[ExportFormat]:
    """Return every format with each of its precisions, in order."""
    return [
        ExportFormat(runtime.file_format, precision.name)
        for runtime in all_runtimes()
        for precision in runtime.precisions
    ]


def variants_by_purpose() -> dict[str, ExportFormat]:
    """Return the formats that are made for a purpose, by its name, such as ``tensorrt``."""
    return {each.details.made_for: each for each in all_formats() if each.details.made_for is not None}
