"""The strict reader of what devices say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pytest
from annotated_types import MaxLen

from edgenas.devices.answers import (
    FIRST_PROBLEM_ONLY,
    MAX_ANSWER_BYTES,
    STRICT,
    FreeText,
    PathText,
    Texts,
    VersionText,
    Word,
    check_answer,
    read_answer,
)
from edgenas.errors import DeviceError
from edgenas.files import Amount, Count, ShortText


@dataclass(frozen=True)
class Said:
    """An answer with a field of each kind."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    path: PathText = "/"
    version: VersionText = "3.11"
    words: FreeText = ""
    word: Word = "x"
    count: Count = 0
    amount: Amount = 0.0
    texts: Texts | None = None
    times: Annotated[tuple[Count, ...], FIRST_PROBLEM_ONLY, MaxLen(10)] = ()


HOSTILE = {
    '{"path": ""}': "path: String should have at least 1 character",
    '{"path": "a\\nb"}': "path: Predicate 'str.isprintable' failed",
    '{"path": null}': "path: Input should be a valid string",
    '{"path": 3}': "path: Input should be a valid string",
    '{"path": "' + "a" * 5000 + '"}': "path: String should have at most 4096 characters",
    '{"path": "\\ud800"}': "Invalid JSON",
    '{"version": "3"}': "version: Predicate 'is_version' failed",
    '{"version": "3.' + "9" * 5000 + '"}': "version: Predicate 'is_version' failed",
    '{"version": "3.x"}': "version: Predicate 'is_version' failed",
    '{"version": "\N{FULLWIDTH DIGIT THREE}.8"}': "version: Predicate 'is_version' failed",
    '{"word": ""}': "word: Predicate 'is_word' failed",
    '{"word": "two words"}': "word: Predicate 'is_word' failed",
    '{"word": "\\u202e"}': "word: Predicate 'is_word' failed",
    '{"count": -1}': "count: Input should be greater than or equal to 0",
    '{"count": 1e3}': "count: Input should be a valid integer",
    '{"count": true}': "count: Input should be a valid integer",
    '{"count": "1"}': "count: Input should be a valid integer",
    '{"count": ' + "9" * 400 + "}": "count: Input should be less than",
    '{"count": ' + "9" * 9000 + "}": "Invalid JSON: number out of range",
    '{"amount": NaN}': "amount: Input should be a finite number",
    '{"amount": 1e400}': "amount: Input should be a finite number",
    '{"texts": []}': "texts: Input should be an object",
    '{"texts": {"a": {}}}': "texts.a: Input should be a valid string",
    '{"texts": {"\\u001b[2J": 1}}': r"texts. \[2J.\[key\]: Predicate 'str.isprintable' failed",
    '{"times": [0, "a", "b"]}': "times.1: Input should be a valid integer",
    '{"times": [' + "0," * 10 + "0]}": "times: Tuple should have at most 10 items",
    '{"unknown": 1}': "unknown: Unexpected keyword argument",
    '{"\\u001b[2J": 1}': r"\[2J: Unexpected keyword argument",
    "[]": "Input should be an object",
    "null": "Input should be an object",
    "7": "Input should be an object",
    "": "Invalid JSON",
    "{}{}": "Invalid JSON",
    "Segmentation fault": r"'Segmentation fault': Invalid JSON",
    "[" * 100_000: "Invalid JSON: recursion limit exceeded",
    '{"texts": ' * 100_000: "recursion limit exceeded|should be a valid string",
    " " * (MAX_ANSWER_BYTES + 1): "more than 1 MiB",
}


@pytest.mark.parametrize(("said", "problem"), HOSTILE.items(), ids=[said[:30] for said in HOSTILE])
def test_whatever_is_not_of_the_type_is_a_device_error(said: str, problem: str) -> None:
    """The message is one printable line that names the field."""
    for answer in (said, said.encode()):
        with pytest.raises(DeviceError, match=rf"^board: answered nonsense \(.*{problem}.*\); try again$") as error:
            read_answer(Said, answer, "board")
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 1000


def test_bytes_that_are_no_text_are_refused() -> None:
    """Our programs write ASCII: where bytes could not be decoded, somebody else speaks."""
    for answer in (b'{"words": "\xff"}', '{"words": "\N{REPLACEMENT CHARACTER}"}'):
        with pytest.raises(DeviceError, match="is not UTF-8"):
            read_answer(Said, answer, "board")


def test_what_is_of_the_type_is_read() -> None:
    """Numbers, texts and lists come as they were sent; a whole number may be a size."""
    said = read_answer(Said, '{"path": "/a b", "count": 3, "amount": 2, "texts": {"a": "b"}, "times": [1]}', "board")
    assert said == Said(path="/a b", count=3, amount=2.0, texts={"a": "b"}, times=(1,))


def test_somebodys_own_words_become_printable_and_short() -> None:
    """Free text may hold anything; what could control a terminal is blank, the middle of a long one is left out."""
    said = read_answer(Said, '{"words": "\\u001b[31m two\\nlines\\u0000"}', "board").words
    assert said == "[31m two lines"
    said = read_answer(Said, '{"words": "' + "x" * 100_000 + 'end"}', "board").words
    assert (len(said) < 500, said[-5:]) == (True, "xxend")


def test_collected_data_is_checked_alike() -> None:
    """Data that was put together here from what a device printed passes the same types."""
    assert check_answer(dict[ShortText, Count], {"cores": 4}, "board") == {"cores": 4}
    with pytest.raises(DeviceError, match=r"^board: .* \(cores: Input should be greater .*\); try again"):
        check_answer(dict[ShortText, Count], {"cores": -4}, "board")
