"""The input and output of a model file, as the file itself says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgenas.files import ShortText


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
class ModelSignature:
    """Types and shapes of all inputs and outputs of a model file, in its order: ``float32 ?x3x96x96``."""

    inputs: tuple[ShortText, ...]
    outputs: tuple[ShortText, ...]


def format_tensor(dtype: str, shape: Sequence[int | None] | None) -> str:
    """Return type and shape as text; an open size is ``?``, and so is a shape of unknown rank."""
    if shape is None:
        return f"{dtype} ?"
    return f"{dtype} {'x'.join('?' if size is None else str(size) for size in shape) or 'scalar'}"


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
