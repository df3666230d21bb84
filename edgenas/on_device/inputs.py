"""A model's inputs on the device: their shapes, and arrays for them. Sent beside agent.py, which documents the request.

Python 3.8, standard library and numpy only; never imports edgenas.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

TEXT = "text"
# 8-bit integers are pixels or quantized numbers and may take all values.
BYTES = ("int8", "uint8")
NUMBERS = ("bool", "float16", "float32", "float64", *BYTES, "int16", "int32", "int64", "uint16", "uint32", "uint64")
BATCH_NAME = re.compile(r"[\w.]*batch[\w.]*|n|b|bs", re.IGNORECASE)
# The first dimension of an image, of rank 4, is the batch, unless it has a name that says something else. Exporters
# give names with a number where they know none: s0, unk__610, input_dynamic_axes_1.
IMAGE_RANK = 4
NO_NAME = re.compile(r"[\w.:-]*\d[\w.:-]*|\W*")
PIECE = 65536  # numbers that are made in a larger type at a time


class InputError(ValueError):
    """An input that nobody gave and that cannot be made up, or one that does not fit; the message has the remedy."""


class DeclaredInput:
    """An input as a model file declares it.

    Attributes:
        name: its name.
        dtype: the name of its numpy type, ``TEXT``, or the runtime's name of another type.
        shape: its dimensions: a size, or a name or None for an open one. None where not even the rank is known.
    """

    def __init__(self, name: str, dtype: str, shape: Sequence[Any] | None) -> None:
        self.name, self.dtype = name, dtype
        self.shape = None if shape is None else list(shape)

    @property
    def is_open(self) -> bool:
        """Whether the file leaves the rank or a dimension open."""
        return self.shape is None or not all(isinstance(size, int) for size in self.shape)


def make_inputs(
    declared: Sequence[DeclaredInput], shapes: Mapping[str, Sequence[int]], arrays: Mapping[str, Any] | None, seed: int
) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Return an array for each input, and the shapes of those whose file leaves dimensions open, by printable names.

    Args:
        declared: the model's inputs.
        shapes: the shapes that the user gives, by name.
        arrays: the arrays that the user gives, by name, for all inputs; None to make them up.
        seed: of the made up numbers.

    Raises:
        InputError: where a dimension is open and no batch, for text that was not given, and for what was given and
            does not fit.
    """
    import numpy as np

    names = [one.name for one in declared]
    unknown = sorted((set(shapes) | set(arrays or ())) - set(names))
    if unknown:
        raise InputError(f"it has no input {unknown[0]!r}, only {', '.join(map(repr, names))}; correct the name")
    generator = np.random.default_rng(seed)
    inputs, filled = {}, {}
    for one in declared:
        if one.dtype != TEXT and one.dtype not in NUMBERS:
            raise InputError(f"input {one.name!r} takes {one.dtype}, which cannot be given; export it with numbers")
        if arrays is None:
            inputs[one.name] = make_array(one, resolve_shape(one, shapes.get(one.name)), generator)
        elif one.name in arrays:
            inputs[one.name] = check_array(one, arrays[one.name])
        else:
            raise InputError(f"input {one.name!r} is not among the given arrays; add it to the file of --inputs")
        if one.is_open:
            filled[repr(one.name)[1:-1]] = list(inputs[one.name].shape)
    return inputs, filled


def resolve_shape(one: DeclaredInput, given: Sequence[int] | None) -> list[int]:
    """Return an input's shape: as given, or as declared with an open batch of 1."""
    if given is not None:
        check_shape(one, given)
        return list(given)
    if one.shape is None:
        raise InputError(
            f"input {one.name!r} has no known rank; give its shape:"
            f" --shape {shlex.quote(f'{one.name}=1x3x224x224')}, say, or =scalar for a single number"
        )
    shape = [1 if is_batch(one.shape, place) else size for place, size in enumerate(one.shape)]
    example = "x".join(str(size) if isinstance(size, int) else "SIZE" for size in shape)
    for place, size in enumerate(shape):
        where = f"at place {place} of {format_shape(one.shape)}"
        if size == 0:
            raise InputError(f"input {one.name!r} has a dimension of size 0 {where}; export it with fixed sizes")
        if not isinstance(size, int):
            name = "" if size is None else f" {size!r}"
            raise InputError(
                f"input {one.name!r} has an open dimension{name} {where}; give its shape:"
                f" --shape {shlex.quote(f'{one.name}={example}')}"
            )
    return shape


def is_batch(shape: Sequence[Any], place: int) -> bool:
    """Return whether a dimension is open and known to be the batch."""
    name = shape[place]
    if isinstance(name, int):
        return False
    if name is not None and BATCH_NAME.fullmatch(name):
        return True
    return place == 0 and len(shape) == IMAGE_RANK and (name is None or bool(NO_NAME.fullmatch(name)))


def check_shape(one: DeclaredInput, shape: Sequence[int]) -> None:
    """Raise InputError for a shape that contradicts the declared one."""
    if one.shape is None:
        return
    pairs = zip(one.shape, shape)  # noqa: B905 - Python 3.8 knows no strict
    if len(shape) != len(one.shape) or any(isinstance(size, int) and size != given for size, given in pairs):
        raise InputError(
            f"input {one.name!r} has shape {format_shape(one.shape)}, but got {format_shape(shape)}; give one that fits"
        )


def check_array(one: DeclaredInput, array: Any) -> Any:
    """Return a given array as the runtimes take it; raise InputError for another type or shape."""
    check_shape(one, array.shape)
    if one.dtype == TEXT and array.dtype.kind == "U":
        return array.astype(object)
    if str(array.dtype) != one.dtype:
        raise InputError(f"input {one.name!r} is of {one.dtype}, but got {array.dtype}; give an array of that type")
    return array


def make_array(one: DeclaredInput, shape: Sequence[int], generator: Any) -> Any:
    """Return random numbers for an input: 0 to 1, all of an 8-bit integer's range, or 0 and 1 for other integers.

    Nothing of another type is made first: it would count as the model's memory.
    """
    import numpy as np

    if one.dtype == TEXT:
        raise InputError(f"input {one.name!r} takes text, which cannot be made up; give it: --inputs FILE.npz")
    if one.dtype == "float16":
        array = np.empty(shape, np.float16)
        for part in np.array_split(array.reshape(-1), 1 + array.size // PIECE):
            part[:] = generator.random(part.size, dtype=np.float32)
        return array
    if one.dtype.startswith("float"):
        return np.asarray(generator.random(shape, dtype=one.dtype))
    # Whole numbers may be indices, and 0 and 1 are within the bounds of nearly all.
    low, high = (np.iinfo(one.dtype).min, np.iinfo(one.dtype).max) if one.dtype in BYTES else (0, 1)
    return np.asarray(generator.integers(low, high, shape, one.dtype, endpoint=True))


def format_shape(shape: Sequence[Any]) -> str:
    """Return a shape as text, with ? for an open dimension without a name; names may contain an x."""
    return " x ".join("?" if size is None else str(size) for size in shape) or "scalar"
