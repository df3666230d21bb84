"""A model's inputs on the device: which open dimensions are the batch, and what is made up or given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.on_device.inputs import NUMBERS, TEXT, DeclaredInput, InputError, make_inputs

Arrays = Mapping[str, Any]


def make(
    declared: Sequence[tuple[str, str, Any]],
    shapes: Mapping[str, Sequence[int]] | None = None,
    arrays: Arrays | None = None,
) -> tuple[dict[str, Any], dict[str, list[int]]]:
    return make_inputs([DeclaredInput(*one) for one in declared], shapes or {}, arrays, 0)


@pytest.mark.parametrize(
    ("shape", "run"),
    [
        (["batch", 8], [1, 8]),
        (["batch_size"], [1]),
        (["N", 8], [1, 8]),
        (["bs", 3, 5], [1, 3, 5]),
        ([16, "Batch", 8], [16, 1, 8]),
        ([None, 3, 8, 8], [1, 3, 8, 8]),
        (["s0", 3, 8, 8], [1, 3, 8, 8]),
        (["unk__610", 8, 8, 3], [1, 8, 8, 3]),
        (["?", 3, 8, 8], [1, 3, 8, 8]),
    ],
)
def test_a_batch_is_one(shape: list[Any], run: list[int]) -> None:
    """By its name at any place, or as the first dimension of an image whose name says nothing; the shape is told."""
    inputs, filled = make([("x", "float32", shape)])
    assert list(inputs["x"].shape) == filled["x"] == run


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (["sequence_length", 64], "an open dimension 'sequence_length' at place 0 of sequence_length x 64"),
        ([None, 64], "an open dimension at place 0 of ? x 64"),
        (["s0", 64], "an open dimension 's0' at place 0 of s0 x 64"),
        (["frames", 3, 8, 8], "an open dimension 'frames' at place 0 of frames x 3 x 8 x 8"),
        (["batch*12", 3, 8, 8], "an open dimension 'batch*12' at place 0 of batch*12 x 3 x 8 x 8"),
        ([None, 3, None, 8], "an open dimension at place 2 of ? x 3 x ? x 8"),
    ],
)
def test_any_other_open_dimension_is_named(shape: list[Any], said: str) -> None:
    """The message has the dimension, its place and the option that gives the shape."""
    with pytest.raises(InputError) as error:
        make([("x", "float32", shape)])
    assert f"input 'x' has {said}; give its shape: --shape x=" in str(error.value)


def test_the_remedy_has_the_known_sizes() -> None:
    """What is open and no batch is left to fill in."""
    with pytest.raises(InputError, match=r"--shape image=1x3xSIZExSIZE$"):
        make([("image", "float32", ["batch", 3, "height", None])])


def test_an_input_of_unknown_rank_is_refused() -> None:
    """The remedy has both a shape and that of a single number."""
    with pytest.raises(
        InputError, match=r"^input 'x' has no known rank; give its shape: --shape x=1x3x224x224, say, or"
    ):
        make([("x", "float32", None)])
    inputs, filled = make([("x", "float32", None), ("y", "float32", None)], {"x": (2, 3), "y": ()})
    assert (inputs["x"].shape, inputs["y"].shape, filled) == ((2, 3), (), {"x": [2, 3], "y": []})


def test_a_dimension_of_zero_is_refused() -> None:
    """Nothing can be run on it, and no shape would fit."""
    with pytest.raises(InputError, match=r"^input 'x' has a dimension of size 0 at place 1 of 1 x 0; export it with"):
        make([("x", "float32", [1, 0])])
    with pytest.raises(InputError, match="has shape 1 x 0, but got 1 x 3"):
        make([("x", "float32", [1, 0])], {"x": (1, 3)})


def test_a_given_shape_stands_for_the_open_one() -> None:
    """It must fit the sizes that the file gives."""
    inputs, filled = make([("x", "float32", [None, "n2", 3])], {"x": (4, 5, 3)})
    assert inputs["x"].shape == (4, 5, 3)
    assert filled == {"x": [4, 5, 3]}
    for wrong in ((4, 5, 6), (4, 5), (4, 5, 3, 1)):
        with pytest.raises(InputError, match=r"^input 'x' has shape \? x n2 x 3, but got 4 x 5.*; give one that fits$"):
            make([("x", "float32", [None, "n2", 3])], {"x": wrong})


@pytest.mark.parametrize("given", [{"shapes": {"y": (1,)}}, {"arrays": {"y": np.ones(1)}}])
def test_a_name_that_is_no_input_is_refused(given: dict[str, Any]) -> None:
    """The message lists the inputs."""
    with pytest.raises(InputError, match=r"^it has no input 'y', only 'x', 'z'; correct the name$"):
        make([("x", "float32", [1]), ("z", "float32", [1])], **given)


def test_given_arrays_must_be_complete() -> None:
    """An input that is not in the file is named: none is made up beside given ones."""
    with pytest.raises(InputError, match=r"^input 'z' is not among the given arrays; add it to the file of --inputs$"):
        make([("x", "float32", [1]), ("z", "float32", [1])], arrays={"x": np.ones(1, np.float32)})


@pytest.mark.parametrize(
    ("declared", "array", "said"),
    [
        (("x", "int64", [2]), np.ones(3, np.int64), "input 'x' has shape 2, but got 3; give one that fits"),
        (("x", "int64", []), np.ones(3, np.int64), "input 'x' has shape scalar, but got 3; give one that fits"),
        (("x", "int64", [2]), np.ones(2, np.int32), "input 'x' is of int64, but got int32; give an array of that type"),
        (("x", TEXT, [2]), np.array([b"a", b"b"]), "input 'x' is of text, but got |S1; give an array of that type"),
        (("x", "seq(tensor(float))", []), np.ones(()), "takes seq(tensor(float)), which cannot be given; export it"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(declared: tuple[str, str, Any], array: Any, said: str) -> None:
    """Nothing is converted in silence."""
    with pytest.raises(InputError) as error:
        make([declared], arrays={"x": array})
    assert said in str(error.value)


def test_given_arrays_are_taken_as_they_are() -> None:
    """Numbers unchanged, text as objects, and the shapes of open inputs are told."""
    ids, words = np.array([[3, 5]]), np.array(["a", "bc"])
    inputs, filled = make([("ids", "int64", [1, "length"]), ("words", TEXT, [2])], arrays={"ids": ids, "words": words})
    assert inputs["ids"] is ids
    assert inputs["words"].tolist() == ["a", "bc"]
    assert inputs["words"].dtype == object
    assert filled == {"ids": [1, 2]}


def test_text_is_not_made_up() -> None:
    """What text a model wants, nobody can guess."""
    with pytest.raises(
        InputError, match=r"^input 'x' takes text, which cannot be made up; give it: --inputs FILE\.npz$"
    ):
        make([("x", TEXT, [1])])


def test_made_up_numbers_fit_their_type() -> None:
    """Floats are from 0 to 1, 8-bit integers take the whole range, other whole numbers are 0 or 1."""
    inputs, filled = make([(dtype, dtype, [1, 50, 40]) for dtype in NUMBERS])
    for dtype, values in inputs.items():
        assert (str(values.dtype), values.shape) == (dtype, (1, 50, 40))
        least, greatest = {"int8": (-128, 127), "uint8": (0, 255)}.get(dtype, (0, 1))
        assert least <= values.min() < values.max() <= greatest
        if dtype in ("int8", "uint8"):
            assert len(np.unique(values)) > 200
        elif not dtype.startswith("float"):
            assert len(np.unique(values)) == 2
    assert filled == {}


@pytest.mark.parametrize("dtype", NUMBERS)
def test_a_single_number_is_an_array(dtype: str) -> None:
    """Runtimes take no numpy scalars."""
    array = make([("x", dtype, [])])[0]["x"]
    assert isinstance(array, np.ndarray)
    assert (array.shape, str(array.dtype)) == ((), dtype)


def test_names_are_told_in_printable_letters() -> None:
    """A file's name for an input may move a terminal's cursor."""
    assert make([("a\x1b[31m", "float32", ["batch"])])[1] == {"a\\x1b[31m": [1]}


SIZES = st.one_of(st.integers(0, 4), st.none(), st.sampled_from(["batch", "N", "length", "s0"]))
SHAPES = st.one_of(st.none(), st.lists(SIZES, max_size=5))


@given(st.lists(st.tuples(st.sampled_from(NUMBERS), SHAPES), max_size=3))
def test_inputs_are_complete_or_refused(kinds: list[tuple[str, list[Any] | None]]) -> None:
    """Every input has an array of its type that fits its shape, open inputs alone are told, or one is named."""
    declared = [(f"in{number}", dtype, shape) for number, (dtype, shape) in enumerate(kinds)]
    try:
        inputs, filled = make(declared)
    except InputError as error:
        assert any(repr(name) in str(error) for name, _, _ in declared)  # noqa: PT017 - both outcomes are right
        return
    assert list(inputs) == [name for name, _, _ in declared]
    for name, dtype, shape in declared:
        assert shape is not None
        array = inputs[name]
        assert str(array.dtype) == dtype
        assert list(array.shape) == [size if isinstance(size, int) else 1 for size in shape]
        assert (name in filled) == any(not isinstance(size, int) for size in shape)


@given(st.lists(SIZES, max_size=4), st.lists(st.integers(1, 4), max_size=4))
def test_a_given_shape_is_taken_or_refused(shape: list[Any], given_shape: list[int]) -> None:
    """It is taken exactly where it has the rank and the fixed sizes of the file."""
    fits = len(shape) == len(given_shape) and all(
        not isinstance(size, int) or size == own for size, own in zip(shape, given_shape, strict=True)
    )
    try:
        inputs, _ = make([("x", "float32", shape)], {"x": given_shape})
    except InputError:
        assert not fits
        return
    assert fits
    assert list(inputs["x"].shape) == given_shape
    assert inputs["x"].size == math.prod(given_shape)
