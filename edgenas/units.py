"""Quantities with units, parsed from text and formatted as text: 15ms, 64MB, +5%."""

from __future__ import annotations

import math
import re

from edgenas.errors import UsageError

_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "min": 6e4}
_COUNTS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_MAX_PERCENT = 1_000_000
UNRESOLVED = "below what can be resolved"
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-z]*)\s*")


def _parse_quantity(text: str, units: dict[str, float] | dict[str, int], name: str, example: str) -> float:
    """Return a positive number times its unit; ``name`` is the quantity's in the message of a UsageError."""
    match = _QUANTITY.fullmatch(text)
    if not match:
        raise UsageError(f"{name} must be a positive number with a unit, but got {text!r}; write for example {example}")
    number, unit = match.groups()
    if unit not in units:
        problem = f"unknown unit {unit!r}" if unit else "no unit"
        raise UsageError(
            f"{name} {text!r} has {problem}; the units are {', '.join(filter(None, units))};"
            f" for example {number}{example.lstrip('0123456789.')}"
        )
    value = float(number) * units[unit]
    if not 0 < value < math.inf:
        raise UsageError(f"{name} must be above zero and finite, but got {text!r}; write for example {example}")
    return value


def parse_ms(text: str, name: str = "duration") -> float:
    """Return a duration in milliseconds: ``"15ms"`` gives 15.0.

    Args:
        text: A number with a unit: us, ms, s or min.
        name: The quantity's name in messages.

    Raises:
        UsageError: ``text`` is no positive number with such a unit.
    """
    return _parse_quantity(text, _MS, name, "15ms")


def parse_bytes(text: str, name: str = "memory") -> int:
    """Return a number of bytes: ``"64MB"`` gives 64_000_000.

    Args:
        text: A number with a unit: B, kB, MB, GB (powers of ten), KiB, MiB or GiB (powers of two).
        name: The quantity's name in messages.

    Raises:
        UsageError: ``text`` is no number with such a unit, or less than one byte.
    """
    value = round(_parse_quantity(text, _BYTES, name, "64MB"))
    if not value:
        raise UsageError(f"{name} must be at least one byte, but got {text!r}; write for example 64MB")
    return value


def parse_count(text: str, name: str = "count") -> float:
    """Return a number of things, such as parameters: ``"5M"`` gives 5_000_000.

    Args:
        text: A positive number, with nothing or k, M or G (powers of ten) behind it.
        name: The quantity's name in messages.

    Raises:
        UsageError: ``text`` is no such number.
    """
    return _parse_quantity(text, _COUNTS, name, "5M")


def parse_percent(text: str, name: str = "tolerance") -> float:
    """Return a percentage as a fraction: ``"+5%"`` gives 0.05. Raises UsageError for anything else."""
    match = re.fullmatch(r"\s*\+?([0-9]+(?:\.[0-9]+)?)\s*%\s*", text)
    if not match:
        raise UsageError(f"{name} must be a percentage, but got {text!r}; write for example 5%")
    if (percent := float(match.group(1))) > _MAX_PERCENT:
        raise UsageError(f"{name} must be at most {_MAX_PERCENT}%, but got {text!r}")
    return percent / 100


def format_ms(value: float) -> str:
    """Return milliseconds as text with three significant digits: ``0.532 ms``, ``12.4 ms``."""
    digits = 4 if value < 0.1 else 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} ms"


def format_latency_budget(value_ms: float) -> str:
    """Return milliseconds as a budget that commands take, rounded up to two digits: ``0.34ms``, ``121ms``."""
    digits = max(0, 1 - math.floor(math.log10(value_ms)))
    return f"{math.ceil(value_ms * 10**digits) / 10**digits:.{digits}f}ms"


def format_ms_interval(interval_ms: tuple[float, float]) -> str:
    """Return an interval of milliseconds as text: ``0.500 ms to 0.600 ms``."""
    low, high = interval_ms
    return f"{format_ms(low)} to {format_ms(high)}"


def format_ms_part(value: float, whole: float) -> str:
    """Return a part of ``whole`` milliseconds as text, to about a thousandth of the whole: 0.05 of 12 is ``0.05 ms``.

    All parts of one whole get equally many decimals, so that a column of them aligns.
    """
    return f"{value:.{_part_digits(whole)}f} ms"


def is_resolved(value: float, whole: float) -> bool:
    """Return whether a part of ``whole`` is more than nothing as ``format_ms_part`` writes it."""
    return round(value, _part_digits(whole)) > 0


def _part_digits(whole: float) -> int:
    return max(0, 3 - math.floor(math.log10(max(whole, 1e-6))))


def format_bytes(value: float) -> str:
    """Return bytes as text with units that are powers of ten: ``812 B``, ``64.0 kB``, ``1.25 MB``."""
    if value < 1000:
        return f"{value:.0f} B"
    for unit, scale in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if value < 1000 * scale or unit == "GB":
            number = value / scale
            return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f} {unit}"
    raise AssertionError("unreachable")


def format_change(ratio: float) -> str:
    """Return a ratio as a change in percent: 1.021 is ``+2.1%``."""
    return f"{ratio - 1:+.1%}"


def format_count(value: float) -> str:
    """Return a number of things as text with three significant digits: ``812``, ``64.0k``, ``1.25M``."""
    return format_bytes(value).removesuffix("B").replace(" ", "")
