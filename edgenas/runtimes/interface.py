"""The input and output of a model file, as the file itself says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and type of a model's input or output.

    Attributes:
        name: its name in the file.
        shape: its sizes; an open batch is None.
        dtype: numpy's name of its element type.
        layout: ``NCHW`` or ``NHWC`` for images, ``NC`` for logits.
        scale: step between two integers of a quantized tensor, else None.
        zero_point: the integer that stands for 0 in a quantized tensor, else None.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    layout: str
    scale: float | None = None
    zero_point: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {**asdict(self), "shape": list(self.shape)}


@dataclass(frozen=True)
class ModelInterface:
    """The input and output of a model file, and its precision by the element types inside it."""

    precision: str
    input: TensorSpec
    output: TensorSpec

    @property
    def batch(self) -> int | None:
        """The number of images of one call; None for any number."""
        return self.input.shape[0]
