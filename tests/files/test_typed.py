"""Plain data as frozen dataclasses."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas import files
from edgenas.errors import SpaceError, UsageError
from tests.files.conftest import JSON_VALUES, assert_one_line


@dataclass(frozen=True)
class Wheel:
    """A part of a configuration."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    diameter: int

    def __post_init__(self) -> None:
        if self.diameter < 0:
            raise SpaceError(f"diameter must not be negative, but got {self.diameter}")


@dataclass(frozen=True)
class Car:
    """A configuration with parts."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    wheels: tuple[Wheel, ...]
    colour: str = "red"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"wheels": [], "color": "blue"},
            "car.yaml: unknown key 'color'; did you mean 'colour'? known: colour, wheels",
        ),
        ({"wheels": [], "xyz": 1}, "car.yaml: unknown key 'xyz'; known: colour, wheels"),
        (
            {"wheels": [{"diameter": 1, "diametre": 2}]},
            "car.yaml: unknown key 'wheels.0.diametre'; did you mean 'diameter'? known: diameter",
        ),
        ({"wheelz": []}, "car.yaml: unknown key 'wheelz'; did you mean 'wheels'?"),
        ({}, "car.yaml: key 'wheels' is missing; known: colour, wheels"),
        ({"wheels": [{"diameter": "big"}]}, "car.yaml: wheels.0.diameter: input should be a valid integer"),
        ({"wheels": [3]}, "car.yaml: wheels.0: must be a mapping with keys, but got 3"),
        ([], "car.yaml: must be a mapping with keys, but got []"),
    ],
)
def test_wrong_data_is_refused_by_name(data: Any, message: str) -> None:
    """A wrong key or value is named with its place; an unknown key with the nearest known one."""
    with pytest.raises(UsageError) as caught:
        files.parse_dataclass(Car, data, "car.yaml")
    assert str(caught.value).startswith(message)
    assert_one_line(caught.value)


def test_rule_of_the_dataclass_is_placed_in_its_file() -> None:
    """An error that the dataclass itself raises keeps its kind and gains the name of the file."""
    with pytest.raises(SpaceError, match=r"car\.yaml: diameter must not be negative, but got -1"):
        files.parse_dataclass(Car, {"wheels": [{"diameter": -1}]}, "car.yaml")


@given(data=JSON_VALUES | st.dictionaries(st.sampled_from(["wheels", "colour"]) | st.integers(), JSON_VALUES))
def test_any_data_is_parsed_or_refused(data: Any) -> None:
    """No data fails with anything but UsageError, on one line."""
    try:
        files.parse_dataclass(Car, data, "car.yaml")
    except UsageError as error:
        assert_one_line(error)


@pytest.mark.parametrize("value", [True, "4", "１２", None, [4]])  # noqa: RUF001 - full-width digits
def test_only_a_number_is_a_number(value: object) -> None:
    """Neither true nor text, digits of other scripts included, is converted to a number."""
    with pytest.raises(UsageError, match=r"car\.yaml: wheels\.0\.diameter: input should be a valid integer"):
        files.parse_dataclass(Car, {"wheels": [{"diameter": value}]}, "car.yaml")
