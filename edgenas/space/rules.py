"""Rules that all families share: valid choices, divisible widths, sizes of feature maps, names of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from edgenas.errors import SpaceError

_MAX_WIDTH = 8192
_MAX_CHOICE = 8192
_MAX_CHOICES = {"kernel_sizes": 31, "depths": 64, "a stage's depths": 64}
_MOST_CHOICES = 256
_MAX_CLASSES = 1_000_000
_MAX_PARTS = 200_000  # published spaces have up to some ten thousand; each takes about a millisecond
FORBID_UNKNOWN = {"extra": "forbid"}  # pydantic's setting of a dataclass
Number = TypeVar("Number", int, float)


def require(condition: bool, message: str) -> None:
    """Raise SpaceError with ``message`` unless the condition is true."""
    if not condition:
        raise SpaceError(message)


def check_choices(name: str, values: Sequence[Number], zero: bool = False) -> tuple[Number, ...]:
    """Return the values of a choice, ascending.

    Args:
        name: The choice's name in messages.
        values: The values in any order.
        zero: Whether 0 is allowed.

    Raises:
        SpaceError: There are no values, or one is repeated, not a number, not positive or too large.
    """
    require(bool(values), f"{name} must name at least one choice")
    require(len(values) <= _MOST_CHOICES, f"{name} must name at most {_MOST_CHOICES} choices, but got {len(values)}")
    booleans = [value for value in values if isinstance(value, bool)]
    require(not booleans, f"{name} must be numbers, but got {booleans[:1]}")
    require(len(set(values)) == len(values), f"{name} must not repeat a choice, but got {list(values)}")
    wrong = [value for value in values if not (value > 0 or (zero and value == 0))]
    require(not wrong, f"{name} must be {'at least' if zero else 'above'} 0, but got {min(wrong, default=0)}")
    limit = _MAX_CHOICES.get(name, _MAX_CHOICE)
    require(max(values) <= limit, f"{name} must be at most {limit}, but got {max(values)}")
    return tuple(sorted(values))


def check_width(name: str, value: int) -> None:
    """Raise SpaceError unless ``value`` is a possible number of channels."""
    possible = not isinstance(value, bool) and 0 < value <= _MAX_WIDTH
    require(possible, f"{name} must be a width above 0 and at most {_MAX_WIDTH}, but got {value}")


def check_classes(classes: int) -> None:
    """Raise SpaceError unless there is a choice between classes."""
    possible = not isinstance(classes, bool) and 2 <= classes <= _MAX_CLASSES
    require(possible, f"classes must be at least 2 and at most {_MAX_CLASSES}, but got {classes}")


def check_part_count(count: int) -> None:
    """Raise SpaceError for a space of very many parts, before they are made."""
    require(
        count <= _MAX_PARTS,
        f"a space may have at most {_MAX_PARTS:,} parts (resolutions, depths, kernel sizes, ratios and widths"
        f" multiplied, for each block), but this one has {count:,}: give fewer choices",
    )


def make_divisible(value: float, divisor: int = 8) -> int:
    """Return the multiple of ``divisor`` nearest to ``value``, but at least nine tenths of it (MobileNetV2's rule)."""
    result = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return result + divisor if result < 0.9 * value else result


def strided_size(size: int, stride: int) -> int:
    """Return the output size of a convolution with an odd kernel k and padding k // 2."""
    return (size - 1) // stride + 1


def block_name(stage: int, place: int) -> str:
    """Return the name of an elastic block. Stage and place count from 0, names from 1: ``stage1.block1``."""
    return f"stage{stage + 1}.block{place + 1}"
