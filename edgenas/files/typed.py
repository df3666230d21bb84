"""Plain data as frozen dataclasses, with types and ranges checked."""

from __future__ import annotations

import difflib
import functools
import reprlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, cast

from annotated_types import Interval, MaxLen, Predicate

from edgenas.errors import EdgeNASError, FormatError, UsageError

T = TypeVar("T")
_UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")  # pydantic's types of error
_MISSING_KEY = ("missing", "missing_argument")
_LONGEST_KEY, _LONGEST_MESSAGE = 100, 600  # in messages
# The ranges of numbers in files. A number may be huge, but not so that sums and products of it overflow.
_LARGEST = 1e15
Amount = Annotated[float, Interval(ge=0, le=_LARGEST)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
Number = Annotated[float, Interval(ge=-_LARGEST, le=_LARGEST)]
Milliseconds = Annotated[float, Interval(ge=1e-6, le=1e9)]  # a clock counts nanoseconds; days are no latency
Count = Annotated[int, Interval(ge=0, le=2**62)]
ShortText = Annotated[str, MaxLen(1000), Predicate(str.isprintable)]


def parse_dataclass(cls: type[T], data: Any, where: str) -> T:
    """Return a frozen dataclass made from plain data, with types checked and unknown keys refused by name.

    Args:
        cls: The dataclass; its fields may be dataclasses, tuples and mappings of them.
        data: Mappings, lists, text and numbers, as from JSON or YAML.
        where: The file or argument that messages name.

    Raises:
        UsageError: A key is unknown or missing, or a value has a wrong type. Where the dataclass itself raised a
            subclass of UsageError, that subclass; where it raised another EdgeNASError, FormatError.
    """
    from pydantic import ValidationError

    try:
        result: T = _validator(cast("Any", cls)).validate_python(data)
    except ValidationError as error:
        raise UsageError(f"{where}: {_format_first_problem(cls, error)}") from None
    except UsageError as error:
        raise type(error)(f"{where}: {_shorten(str(error))}") from None
    except EdgeNASError as error:
        raise FormatError(f"{where}: {_shorten(str(error))}") from None
    return result


@functools.cache
def _validator(cls: Any) -> Any:
    from pydantic import TypeAdapter
    from pydantic_core import SchemaValidator

    return SchemaValidator(_with_exact_numbers(TypeAdapter(cls).core_schema))


def _with_exact_numbers(schema: Any) -> Any:
    """Return a schema of pydantic that converts nothing of another type to a number, such as true or "4"."""
    if isinstance(schema, (list, tuple)):
        return type(schema)(_with_exact_numbers(each) for each in schema)
    if not isinstance(schema, dict):
        return schema
    exact = {key: value if key == "metadata" else _with_exact_numbers(value) for key, value in schema.items()}
    if exact.get("type") in ("int", "float", "bool"):
        exact["strict"] = True
    return exact


def _shorten(text: str) -> str:
    """Return a message; of a very long one, which quotes a hostile value, the beginning and the end."""
    half = _LONGEST_MESSAGE // 2
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:half]} ... {text[-half:]}"


def _format_first_problem(cls: type[Any], error: Any) -> str:
    problems = error.errors()
    # A misspelt key is also reported as a missing one; the key that was given helps more.
    problem = next((item for item in problems if item["type"] in _UNKNOWN_KEY), problems[0])
    place = ".".join(format_value(step) for step in problem["loc"])
    if problem["type"] in _UNKNOWN_KEY or problem["type"] in _MISSING_KEY:
        known = sorted(_field_names(cls, problem["loc"][:-1]))
        if problem["type"] in _MISSING_KEY:
            return f"key {place!r} is missing; known: {', '.join(known)}"
        return f"unknown key {place!r}{format_suggestion(format_value(problem['loc'][-1]), known)}"
    if problem["type"] == "dataclass_type":
        return f"{place + ': ' if place else ''}must be a mapping with keys, but got {reprlib.repr(problem['input'])}"
    if problem["type"] == "predicate_failed":  # the only one is that of ShortText
        return f"{place}: must be printable text, but got {reprlib.repr(problem['input'])}"
    return f"{place}: {problem['msg'][0].lower()}{problem['msg'][1:]}, but got {reprlib.repr(problem['input'])}"


def _field_names(cls: type[Any], path: tuple[Any, ...]) -> list[str]:
    """Return the field names of the dataclass at ``path`` below ``cls``."""
    import dataclasses
    import typing

    for step in path:
        if isinstance(step, str) and dataclasses.is_dataclass(cls):
            hint: Any = typing.get_type_hints(cls).get(step)
            while hint is not None and not dataclasses.is_dataclass(hint):
                candidates = [arg for arg in typing.get_args(hint) if arg is not type(None) and arg is not Ellipsis]
                hint = candidates[-1] if candidates else None
            if hint is None:
                return []
            cls = cast("type[Any]", hint)
    return [field.name for field in dataclasses.fields(cls)]


def check_keys(data: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raise UsageError for the first key that is not known, with the nearest one."""
    unknown = next((key for key in data if key not in known), None)
    if unknown is not None:
        raise UsageError(
            f"{where}: unknown key {reprlib.repr(unknown)}{format_suggestion(str(unknown), sorted(known))}"
        )


def format_value(value: object) -> str:
    """Return a key, an index or another value of a document as short printable text."""
    text = str(value)
    return text if text.isprintable() and len(text) <= _LONGEST_KEY else reprlib.repr(text)


def format_suggestion(word: str, known: list[str]) -> str:
    """Return the end of a message about an unknown word: the nearest known word, and all known ones."""
    close = difflib.get_close_matches(word[:_LONGEST_KEY], known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} known: {', '.join(known)}"
