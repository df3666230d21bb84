"""Rules that all families share: divisible widths, valid choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from edgenas.errors import SpaceError

_LARGEST = 8192
_LARGEST_OF = {"kernel_sizes": 31, "depths": 64, "a stage's depths": 64}
FORBID_UNKNOWN = {"extra": "forbid"}
Number = TypeVar("Number", int, float)


def require(holds: bool, message: str) -> None:
    """Raise SpaceError with ``message`` unless the rule holds."""
    if not holds:
        raise SpaceError(message)


def check_choices(name: str, values: Sequence[Number], zero: bool = False) -> tuple[Number, ...]:
    """The values of a choice, ascending.

    Raises SpaceError when there are none, or one is repeated, not a number or
    not positive; ``zero`` allows 0 too.
    """
    require(bool(values), f"{name} must name at least one choice")
    require(len(set(values)) == len(values), f"{name} must not repeat a choice, but got {list(values)}")
    wrong = [value for value in values if not (value > 0 or (zero and value == 0))]
    require(not wrong, f"{name} must be {'at least' if zero else 'above'} 0, but got {min(wrong, default=0)}")
    largest = _LARGEST_OF.get(name, _LARGEST)
    require(max(values) <= largest, f"{name} must be at most {largest}, but got {max(values)}")
    return tuple(sorted(values))


def make_divisible(value: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to ``value``, never below nine tenths of it (MobileNetV2's rule)."""
    result = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return result + divisor if result < 0.9 * value else result


def strided_size(size: int, stride: int) -> int:
    """Output size of a convolution with odd kernel k and padding k // 2."""
    return (size - 1) // stride + 1


def block_name(stage: int, place: int) -> str:
    """The name of an elastic block, both counted from 0: ``stage1.block1`` is the first."""
    return f"stage{stage + 1}.block{place + 1}"
