"""The one strict reader of what devices say, and the limits of what they may send.

A device may be broken, or somebody else's. What it says is read into a type:
whatever is missing, unknown, of another type, out of range, no UTF-8, nested
without end or too long is a DeviceError that names the field. Types of answers
are dataclasses and typed dictionaries with ``__pydantic_config__ = STRICT`` and
fields of the types here and in edgenas/files/typed.py.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from annotated_types import MaxLen, MinLen, Predicate

from edgenas.errors import MAX_QUOTE_LENGTH, DeviceError, one_line, printable
from edgenas.files import ShortText

if TYPE_CHECKING:
    from pydantic import ValidationError

T = TypeVar("T")

# A size that a device names is a claim. Nothing larger than this is kept, whatever is claimed or comes.
MAX_PACKET_BYTES = 256 << 10  # of SSH, as OpenSSH itself has it
MAX_ANSWER_BYTES = 1 << 20  # an answer, and a frame of the remote worker
MAX_SHELL_BYTES = 2 << 20  # what a command of the login shell prints; /proc/cpuinfo of 1,000 cores is 1.5 MB
MAX_OUTPUT_BYTES = 16 << 20  # of a command: one line, all of it where it is not read by lines, lines not yet read
MAX_FILE_BYTES = 256 << 20
MAX_CPUS = 4096
MAX_ENTRIES = 1000  # of a list or a mapping
_VERSION = re.compile(r"\d{1,3}\.\d{1,3}(\.\d{1,3}[\w.+-]{0,40})?", re.ASCII)

# Keys are known, numbers are finite and of the right JSON type.
STRICT: Any = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


def is_version(text: str) -> bool:
    """Return whether text is a version of Python: two short numbers, and maybe more."""
    return _VERSION.fullmatch(text) is not None


def is_word(text: str) -> bool:
    """Return whether text is one word of ASCII, as names of kernels and processors are."""
    return text.isascii() and text.isprintable() and len(text.split()) == 1


class _FreeText:
    """A mark of text in somebody's own words: it may hold anything, and becomes printable and short."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(
            lambda text: printable(text, MAX_QUOTE_LENGTH).strip(), handler(source)
        )


class _FirstProblemOnly:
    """A mark of a sequence that is refused at its first wrong item: a list of a million problems takes much memory."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return {**handler(source), "fail_fast": True}


FIRST_PROBLEM_ONLY = _FirstProblemOnly()
FreeText = Annotated[str, _FreeText()]
PathText = Annotated[str, MinLen(1), MaxLen(4096), Predicate(str.isprintable)]
Word = Annotated[str, MaxLen(200), Predicate(is_word)]
VersionText = Annotated[str, Predicate(is_version)]
Words = Annotated[list[ShortText], FIRST_PROBLEM_ONLY, MaxLen(MAX_ENTRIES)]
Texts = Annotated[Mapping[ShortText, ShortText], MaxLen(MAX_ENTRIES)]


def read_answer(kind: type[T], answer: str | bytes, where: str) -> T:
    """Read one answer of a program of ours on a device. Our programs write ASCII.

    Args:
        kind: The type of the answer.
        answer: JSON text; undecodable bytes of ``str`` are replacement characters.
        where: The beginning of the error's message.

    Raises:
        DeviceError: The text is not of this type; the message names the field.
    """
    from pydantic import ValidationError

    text = answer if isinstance(answer, str) else answer.decode(errors="replace")
    quote = repr(text[:80])
    if len(text) > MAX_ANSWER_BYTES:
        raise _nonsense(where, f"{quote}: more than {MAX_ANSWER_BYTES >> 20} MiB")
    if "\N{REPLACEMENT CHARACTER}" in text:
        raise _nonsense(where, f"{quote}: is not UTF-8")
    try:
        result: T = _adapter(cast("Any", kind)).validate_json(text)
    except ValidationError as error:
        raise _nonsense(where, f"{quote}: {_first_problem(error)}") from None
    return result


def check_answer(kind: type[T], value: Any, where: str) -> T:
    """Check plain data that was collected from a device; as ``read_answer``."""
    from pydantic import ValidationError

    try:
        result: T = _adapter(cast("Any", kind)).validate_python(value)
    except ValidationError as error:
        raise _nonsense(where, _first_problem(error)) from None
    return result


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _nonsense(where: str, problem: str) -> DeviceError:
    return DeviceError(f"{where}: answered nonsense ({problem}); try again")


def _first_problem(error: ValidationError) -> str:
    """Return the first field that is wrong, whose name may be the device's own, and what is wrong with it."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = one_line(".".join(map(str, problem["loc"])))
    return f"{field}: {problem['msg']}" if field else problem["msg"]
