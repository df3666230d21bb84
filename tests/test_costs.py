"""Budgets."""

import math
from typing import Any

import pytest

from edgenas.costs import Budget
from edgenas.errors import UsageError


def test_budget_has_numbers_with_units() -> None:
    """Limits given as text are numbers in milliseconds and bytes."""
    budget = Budget(latency="1.5s", memory="64MB")
    assert (budget.latency_ms, budget.memory_bytes) == (1500.0, 64_000_000.0)


def test_missing_limit_is_infinite() -> None:
    """A missing limit is infinity."""
    assert Budget(latency="1ms").memory_bytes == math.inf
    assert Budget(memory="1MB").latency_ms == math.inf


def test_budget_without_limit_is_refused() -> None:
    """A budget that limits nothing is refused with an example."""
    with pytest.raises(UsageError, match="a budget needs a limit: a latency, for example 15ms"):
        Budget()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"latency": "15"}, "latency budget '15' has no unit"),
        ({"latency": "0ms"}, "latency budget must be above zero"),
        ({"latency": "15MB"}, "latency budget '15MB' has unknown unit 'MB'"),
        ({"memory": "64"}, "memory budget '64' has no unit"),
        ({"latency": "1ms", "memory": "1ms"}, "memory budget '1ms' has unknown unit 'ms'"),
    ],
)
def test_wrong_limit_is_refused_when_the_budget_is_made(limits: dict[str, Any], message: str) -> None:
    """A limit without a unit, of another quantity or not positive fails at once, not when it is first compared."""
    with pytest.raises(UsageError, match=message):
        Budget(**limits)


def test_budget_prints_its_limits() -> None:
    """The text of a budget lists its limits with units."""
    assert str(Budget(latency="1ms", memory="64MB")) == "latency 1.00 ms, memory 64.0 MB"


def test_equal_budgets_are_equal_values() -> None:
    """A budget is a frozen value."""
    assert Budget(latency="1ms") == Budget(latency="1ms")
    assert len({Budget(latency="1ms"), Budget(latency="1ms")}) == 1


def test_a_percentile_above_the_median_is_part_of_the_budget() -> None:
    """It is shown and told apart; the median is not mentioned."""
    tail = Budget(latency="15ms", percentile=90)
    assert str(tail) == "latency 15.0 ms at percentile 90"
    assert repr(tail) == "Budget(latency='15ms', percentile=90)"
    assert tail != Budget(latency="15ms")
    assert repr(Budget(latency="15ms", percentile=50)) == "Budget(latency='15ms')"


@pytest.mark.parametrize("percentile", [-1, 49, 100])
def test_a_percentile_that_is_none_of_a_tail_raises(percentile: int) -> None:
    """A percentile lies from the median to 99."""
    with pytest.raises(UsageError, match="percentile must be from 50"):
        Budget(latency="15ms", percentile=percentile)
