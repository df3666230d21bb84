"""Budgets."""

import math

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
def test_wrong_limit_is_refused_when_the_budget_is_made(limits: dict[str, str], message: str) -> None:
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
