"""The order in which a front's subnets are tried for a budget."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgenas.costs import Budget
from edgenas.errors import BudgetError
from edgenas.search import Candidates, Front, rank_candidates

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


class Device:
    """A made-up device: every candidate is measured at these factors of its predicted latency and memory."""

    def __init__(self, front: Front, latency: float = 1.0, memory: float = 1.0) -> None:
        self.latency_ms, self.peak_bytes = front.latency_ms * latency, front.peak_bytes * memory
        self.front, self.tried = front, list[int]()

    def choose(self, budget: Budget, latency_error: float = 0.05, memory_error: float = 0.1) -> int | None:
        """Return the first candidate that keeps the budget here; all that were tried are in ``tried``."""
        errors = np.full(len(self.front), latency_error)
        candidates = Candidates(self.front, budget, errors, memory_error)
        while (index := candidates.take()) is not None:
            self.tried.append(index)
            if self.latency_ms[index] <= budget.latency_ms and self.peak_bytes[index] <= budget.memory_bytes:
                return index
            candidates.learn(index, float(self.latency_ms[index]), float(self.peak_bytes[index]))
        return None


@pytest.fixture
def dense(make_front: Callable[..., Front]) -> Front:
    """A front of 100 subnets, each a half percent slower, larger and a little more accurate than the one before."""
    return make_front(*((0.8 + 0.001 * step, 1.005**step, 1e6 * 1.005**step) for step in range(100)))


@pytest.mark.parametrize("factor", [1.001, 1.03, 1.2])
@pytest.mark.parametrize("quantity", ["latency", "memory"])
def test_predictions_that_are_too_low_cost_one_try(dense: Front, quantity: str, factor: float) -> None:
    """Whatever a device takes more than predicted, the first candidate tells, and the second is the best that fits."""
    device = Device(dense, **{quantity: factor})
    budget = Budget(latency="1.3ms") if quantity == "latency" else Budget(memory="1.3MB")
    costs, limit = (
        (device.latency_ms, budget.latency_ms) if quantity == "latency" else (device.peak_bytes, budget.memory_bytes)
    )
    chosen = device.choose(budget)
    assert chosen == np.flatnonzero(costs <= limit)[-1]
    assert len(device.tried) <= 2


@pytest.mark.parametrize("quantity", ["latency", "memory"])
def test_a_budget_that_nothing_keeps_costs_few_tries(dense: Front, quantity: str) -> None:
    """Where the smallest is predicted just below the budget and all take 5% more, four tries show it, not twenty."""
    device = Device(dense, **{quantity: 1.05})
    assert device.choose(Budget(latency="1.04ms") if quantity == "latency" else Budget(memory="1.04MB")) is None
    assert len(device.tried) == 4
    assert device.tried[1:] == sorted(device.tried[1:])  # the likeliest, which is the smallest, comes first


def test_right_predictions_cost_one_try(dense: Front) -> None:
    """Where predictions are right, the most accurate candidate is tried and kept, at the very limit too."""
    device = Device(dense)
    assert device.choose(Budget(latency=f"{dense.latency_ms[40]}ms")) == 40
    assert device.tried == [40]


def test_a_candidate_at_both_limits_is_not_tried_first(make_front: Callable[..., Front]) -> None:
    """One that keeps two limits by a hair, with a quarter of a chance, waits for one that keeps one by a hair."""
    front = make_front((0.9, 1.0, 1.0e6), (0.95, 2.0, 1.98e6))
    errors = (np.full(2, 0.05), 0.1)
    assert Candidates(front, Budget(latency="2ms", memory="2MB"), *errors).take() == 0
    assert Candidates(front, Budget(latency="2ms", memory="2.2MB"), *errors).take() == 1


def test_without_a_measured_memory_nothing_is_learned_of_it(dense: Front) -> None:
    """A device that does not report memory leaves its predictions as they are."""
    candidates = Candidates(dense, Budget(memory="1.3MB"), np.full(100, 0.05), 0.1)
    first = candidates.take()
    assert first is not None
    candidates.learn(first, 1.0, None)
    assert candidates.take() == first - 1
