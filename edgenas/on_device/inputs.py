"""A model's inputs on the device: their shapes, and arrays for them. Sent beside agent.py, which documents the request.

Python 3.8, standard library and numpy only; never imports edgenas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TEXT = "text"
NUMBERS = ("float16", "float32", "float64", "bool",
           "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")  # fmt: skip
# The first dimension of an image, of rank 4, is the batch; others are known by their names.
IMAGE_RANK = 4
BATCH_NAMES = ("n", "b", "bs")


class InputError(ValueError):
    """An input that nobody gave and that cannot be made up, or one that does not fit; the message has the remedy."""


class DeclaredInput:
    """An input as a model file declares it.

    Attributes:
        name: its name.
        dtype: the name of its numpy type, ``TEXT``, or the runtime's name of another type.
        shape: its dimensions: a size, or a name or None for an open one.
    """

    def __init__(self, name: str, dtype: str, shape: Sequence[Any]) -> None:
        self.name, self.dtype, self.shape = name, dtype, list(shape)


def make_inputs(
    declared: Sequence[DeclaredInput], shapes: Mapping[str, Sequence[int]], arrays: Mapping[str, Any] | None, seed: int
) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Return an array for each input, and the shapes of those whose file leaves a dimension open.

    Args:
        declared: the model's inputs.
        shapes: the shapes that the user gives, by name.
        arrays: the arrays that the user gives, by name, for all inputs; None to make them up.
        seed: of the made up numbers.

    Raises:
        InputError: where a dimension is open and no batch, and for what was given and does not fit.
    """
    import numpy as np

    names = [one.name for one in declared]
    unknown = sorted((set(shapes) | set(arrays or ())) - set(names))
    if unknown:
        raise InputError(f"it has no input {unknown[0]!r}, only {', '.join(map(repr, names))}; correct the name")
    generator = np.random.default_rng(seed)
    inputs, filled = {}, {}
    for one in declared:
        if arrays is None:
            shape = resolve_shape(one, shapes.get(one.name))
            inputs[one.name] = make_array(one, shape, generator)
        elif one.name in arrays:
            inputs[one.name] = check_array(one, arrays[one.name])
        else:
            raise InputError(f"input {one.name!r} is not among the given arrays; add it to the file of --inputs")
        if not all(is_size(size) for size in one.shape) or list(inputs[one.name].shape) != one.shape:
            filled[one.name] = list(inputs[one.name].shape)
    return inputs, filled


def resolve_shape(one: DeclaredInput, given: Sequence[int] | None) -> list[int]:
    """Return an input's shape: as given, or as declared with an open batch of 1."""
    if given is not None:
        check_shape(one, given)
        return list(given)
    shape = list(one.shape)
    if shape and not is_size(shape[0]) and is_batch(one):
        shape[0] = 1
    for place, size in enumerate(shape):
        if not is_size(size):
            kind = f"dimension {size!r}" if isinstance(size, str) else "dimension"
            example = "x".join(str(size) if is_size(size) else "SIZE" for size in shape)
            raise InputError(
                f"input {one.name!r} has an open {kind} at place {place} of {format_shape(one.shape)};"
                f" give its shape: --shape {one.name}={example}"
            )
    return shape


def is_size(size: Any) -> bool:
    """Return whether a dimension is a size above zero."""
    return isinstance(size, int) and size > 0


def is_batch(one: DeclaredInput) -> bool:
    """Return whether the first dimension, which is open, is known to be the batch."""
    name = one.shape[0]
    if isinstance(name, str) and name:
        return "batch" in name.lower() or name.lower() in BATCH_NAMES
    return len(one.shape) == IMAGE_RANK


def check_shape(one: DeclaredInput, shape: Sequence[int]) -> None:
    """Raise InputError for a shape that contradicts the declared one."""
    # A file that declares no dimensions may take any: an unknown rank looks like a scalar.
    fits = len(shape) == len(one.shape) and all(
        not is_size(size) or size == own
        for size, own in zip(one.shape, shape)  # noqa: B905 - Python 3.8 knows no strict
    )
    if one.shape and not fits:
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
    """Return random numbers for an input: 0 to 1, all of an 8-bit integer's range, or 0 and 1 for other integers."""
    import numpy as np

    if one.dtype not in NUMBERS:
        raise InputError(f"input {one.name!r} takes {one.dtype}, which cannot be made up; give it: --inputs FILE.npz")
    values = np.asarray(generator.random(shape, dtype=np.float32))
    if one.dtype in ("int8", "uint8"):
        limits = np.iinfo(one.dtype)
        values = np.round(values * (limits.max - limits.min) + limits.min)
    elif not one.dtype.startswith("float"):
        # Whole numbers may be indices, and 0 and 1 are within the bounds of nearly all.
        values = values > 0.5
    return np.asarray(values).astype(one.dtype, copy=False)


def format_shape(shape: Sequence[Any]) -> str:
    """Return a shape as text, with ? for an open dimension without a name."""
    return "x".join("?" if size is None or size == -1 else str(size) for size in shape) or "none"
