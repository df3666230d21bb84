"""Limits: what texts mean."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.errors import UsageError
from edgenas.regression.limits import QUANTITIES, Limit, Quantity, parse_limits


@pytest.mark.parametrize(
    ("quantity", "text", "value", "is_relative"),
    [
        ("latency", "+5%", 1.05, True),
        ("latency", "5%", 1.05, True),
        ("latency", "15ms", 15.0, False),
        ("latency", "0.2 s", 200.0, False),
        ("memory", "+0%", 1.0, True),
        ("memory", "64MB", 64e6, False),
        ("size", "512KiB", 524288.0, False),
    ],
)
def test_a_limit_is_a_share_or_a_quantity(quantity: Quantity, text: str, value: float, is_relative: bool) -> None:
    """Percentages are relative to the baseline, all else has a unit."""
    limit = Limit.parse(quantity, text)
    assert limit.value == pytest.approx(value)
    assert (limit.is_relative, limit.text) == (is_relative, text)


@pytest.mark.parametrize(
    ("quantity", "text"), [("latency", "64MB"), ("memory", "15ms"), ("size", "1e3"), ("size", "0B"), ("latency", "-1%")]
)
def test_a_limit_of_another_kind_is_refused(quantity: Quantity, text: str) -> None:
    """By the name of the quantity."""
    with pytest.raises(UsageError, match=f"{quantity} limit"):
        Limit.parse(quantity, text)


@given(st.sampled_from(QUANTITIES), st.text())
def test_any_text_is_a_limit_or_wrong_use(quantity: Quantity, text: str) -> None:
    """Nothing else is raised, and a limit is above zero."""
    with contextlib.suppress(UsageError):
        assert Limit.parse(quantity, text).value > 0


def test_a_baseline_guards_the_latency_in_any_case() -> None:
    """Also where only the memory has a limit; without a baseline there is none by default."""
    assert [one.text for one in parse_limits({"memory": ["+2%"]}, True)] == ["+5%", "+2%"]
    assert [one.text for one in parse_limits({"latency": ["15ms"]}, True)] == ["15ms"]
    assert [one.text for one in parse_limits({"memory": ["1MB"]}, False)] == ["1MB"]
