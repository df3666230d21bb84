"""The exception tree."""

import inspect

import pytest

from edgenas import errors

CLASSES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if value.__module__ == errors.__name__ and issubclass(value, Exception)
]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_derives_from_the_root(cls: type[Exception]) -> None:
    """One except clause catches all that edgenas raises on purpose."""
    assert issubclass(cls, errors.EdgeNASError)


@pytest.mark.parametrize("cls", CLASSES)
def test_exit_code_says_whose_fault_it_is(cls: type[errors.EdgeNASError]) -> None:
    """What the caller can correct exits with 2, Ctrl-C with 130, everything else with 1."""
    others = 130 if cls is errors.InterruptedByUserError else 1
    assert cls.exit_code == (2 if issubclass(cls, errors.UsageError) else others)


@pytest.mark.parametrize("cls", CLASSES)
def test_tree_in_the_docstring_names_every_error(cls: type[Exception]) -> None:
    """The drawing shows each class once, in the depth at which it derives."""
    lines = (errors.__doc__ or "").splitlines()
    drawn = [line for line in lines if cls.__name__ in line.split()]
    assert len(drawn) == 1
    depth = len(cls.__mro__) - len(errors.EdgeNASError.__mro__)
    assert drawn[0].index(cls.__name__) == 4 + 4 * depth


def test_errors_are_not_value_errors() -> None:
    """No error is a ValueError, which pydantic would swallow and reword inside a dataclass."""
    assert not [cls for cls in CLASSES if issubclass(cls, ValueError | AssertionError)]
