"""The ranking of a front's subnets for a budget."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgenas.costs import Budget
from edgenas.errors import BudgetError
from edgenas.search import Front, rank_candidates

# (accuracy, latency in ms, bytes)
_ROWS = ((0.80, 1.0, 4e6), (0.90, 2.0, 3e6), (0.95, 3.0, 2e6), (0.95, 2.5, 9e6), (0.99, 9.0, 1e6))


def test_the_most_accurate_comes_first_and_the_faster_of_equals(make_front: Callable[..., Front]) -> None:
    """Within 3 ms: 0.95 at 2.5 ms, 0.95 at 3 ms (the limit itself is allowed), 0.90, 0.80."""
    assert rank_candidates(make_front(*_ROWS), Budget(latency="3ms")).tolist() == [3, 2, 1, 0]


def test_all_limits_hold(make_front: Callable[..., Front]) -> None:
    """Within 3 ms and 3 MB only two remain."""
    assert rank_candidates(make_front(*_ROWS), Budget(latency="3ms", memory="3MB")).tolist() == [2, 1]


def test_memory_alone_is_a_budget(make_front: Callable[..., Front]) -> None:
    """Without a latency limit the slowest subnet is a candidate too."""
    assert rank_candidates(make_front(*_ROWS), Budget(memory="2MB")).tolist() == [4, 2]


def test_equals_in_everything_keep_the_order_of_the_front(make_front: Callable[..., Front]) -> None:
    """Subnets with equal costs keep their order."""
    assert rank_candidates(make_front(*[(0.9, 1.0, 1e6)] * 3), Budget(latency="1ms")).tolist() == [0, 1, 2]


@pytest.mark.parametrize("limits", [{"latency": "0.9ms"}, {"memory": "0.5MB"}, {"latency": "1ms", "memory": "1MB"}])
def test_an_impossible_budget_names_the_fastest_and_the_smallest(
    limits: dict[str, str], make_front: Callable[..., Front]
) -> None:
    """When nothing fits, the message says which is fastest and how fast, which needs the least memory and how much."""
    front = make_front(*_ROWS)
    ids = [architecture.id for architecture in front.architectures()]
    with pytest.raises(BudgetError) as caught:
        rank_candidates(front, Budget(**limits))
    message = str(caught.value)
    assert f"fastest is {ids[0]} with 1.00 ms" in message
    assert f"the one with the least memory is {ids[4]} with 1.00 MB" in message
    assert str(Budget(**limits)) in message
    assert "localhost" in message
    assert "\n" not in message
