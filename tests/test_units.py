"""Quantities with units."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.errors import UsageError
from edgenas.units import (
    format_bytes,
    format_latency_budget,
    format_ms,
    format_ms_part,
    parse_bytes,
    parse_ms,
    parse_percent,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("15ms", 15.0), ("250us", 0.25), ("1.5s", 1500.0), ("2min", 120000.0), (" .5 ms ", 0.5), ("007ms", 7.0)],
)
def test_duration_is_parsed_to_milliseconds(text: str, expected: float) -> None:
    """A duration with a unit becomes milliseconds."""
    assert parse_ms(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("64MB", 64_000_000), ("1B", 1), ("1.5kB", 1500), ("2GB", 2_000_000_000), ("1KiB", 1024), ("1.5MiB", 1_572_864)],
)
def test_memory_is_parsed_to_bytes(text: str, expected: int) -> None:
    """kB, MB, GB are powers of ten; KiB, MiB, GiB powers of two."""
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("+5%", 0.05), ("5%", 0.05), (" +0.5 % ", 0.005), ("0%", 0.0)])
def test_percentage_is_parsed_to_a_fraction(text: str, expected: float) -> None:
    """A percentage becomes a fraction."""
    assert parse_percent(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["-5%", "5", "+5", "five%", "", "1e3%", "+-5%"])
def test_wrong_percentage_is_refused(text: str) -> None:
    """A percentage without a percent sign, or a negative one, is refused with an example."""
    with pytest.raises(UsageError, match=r"tolerance must be a percentage, but got .*for example 5%"):
        parse_percent(text)


def test_missing_unit_is_named_with_a_remedy() -> None:
    """A bare number is refused and answered with the units and an example made from it."""
    with pytest.raises(
        UsageError, match="latency budget '15' has no unit; the units are us, ms, s, min; for example 15ms"
    ):
        parse_ms("15", "latency budget")


def test_unknown_unit_lists_the_known() -> None:
    """An unknown unit is refused with those that exist."""
    with pytest.raises(
        UsageError, match="memory '64mb' has unknown unit 'mb'; the units are B, kB, MB, GB, KiB, MiB, GiB"
    ):
        parse_bytes("64mb")


@pytest.mark.parametrize("text", ["0ms", "-1ms", "nan ms", "inf ms", "1e3ms", "ms", "", "1,5ms", "9" * 400 + "ms"])
def test_duration_must_be_positive_and_finite(text: str) -> None:
    """Nothing, nonsense, zero, negative and endless durations are refused."""
    with pytest.raises(UsageError, match="duration"):
        parse_ms(text)


@pytest.mark.parametrize("text", ["0B", "0.2B", "9" * 400 + "GB"])
def test_memory_must_be_at_least_one_byte(text: str) -> None:
    """A memory limit that rounds to no byte, or has no end, is refused."""
    with pytest.raises(UsageError, match="memory"):
        parse_bytes(text)


@pytest.mark.parametrize("parse", [parse_ms, parse_bytes, parse_percent])
@given(text=st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from("0123456789.msMB%+ "), max_size=12))
def test_any_text_is_parsed_or_refused(parse: Callable[[str], float], text: str) -> None:
    """No text raises anything but UsageError, and what is parsed is a finite number of the right sign."""
    try:
        value = parse(text)
    except UsageError:
        return
    assert 0 <= value < math.inf


@pytest.mark.parametrize(
    ("value", "text"), [(0.5321, "0.532 ms"), (1.234, "1.23 ms"), (12.44, "12.4 ms"), (1234.5, "1234 ms")]
)
def test_milliseconds_are_printed_with_three_digits(value: float, text: str) -> None:
    """Milliseconds have three significant digits, and none is made up past the point."""
    assert format_ms(value) == text


@pytest.mark.parametrize(
    ("value", "whole", "text"),
    [
        (0.05, 19.1, "0.05 ms"),
        (12.34, 19.1, "12.34 ms"),
        (0.5, 179.0, "0.5 ms"),
        (7.0, 2500.0, "7 ms"),
        (0.0001, 0.23, "0.0001 ms"),
        (0.0, 0.0, "0.000000000 ms"),
    ],
)
def test_parts_of_a_whole_have_equal_decimals(value: float, whole: float, text: str) -> None:
    """As many as a thousandth of the whole needs, whatever the part."""
    assert format_ms_part(value, whole) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(812, "812 B"), (64_000, "64.0 kB"), (1_250_000, "1.25 MB"), (999, "999 B"), (1000, "1.00 kB"), (5e12, "5000 GB")],
)
def test_bytes_are_printed_in_powers_of_ten(value: float, text: str) -> None:
    """Bytes are printed in the largest power of ten that leaves a number above one."""
    assert format_bytes(value) == text


@given(st.floats(min_value=0.1, max_value=1e8))
def test_printed_duration_parses_back(value: float) -> None:
    """What is printed can be typed again, and is the value to half a percent."""
    assert parse_ms(format_ms(value)) == pytest.approx(value, rel=0.005)


@given(st.floats(1e-4, 1e5))
def test_printed_budget_is_not_below_the_value(value: float) -> None:
    """A budget made of a latency parses, and is that latency or at most a tenth more."""
    assert value <= parse_ms(format_latency_budget(value)) <= 1.1001 * value
