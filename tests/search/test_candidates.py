"""Which subnet is worth the next try for a budget, and on which target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgenas.costs import Budget
from edgenas.search import AccuracyEstimates, Candidates, TargetPredictions

# (accuracy, latency in ms, bytes)
_ROWS = ((0.80, 1.0, 4e6), (0.90, 2.0, 3e6), (0.95, 3.0, 2e6), (0.95, 2.5, 9e6), (0.99, 9.0, 1e6))
# A subnet is a half percent slower, larger and a little more accurate than the one before.
_DENSE = tuple((0.8 + 0.001 * step, 1.005**step, 1e6 * 1.005**step) for step in range(100))
Rows = Sequence[tuple[float, float, float]]


def predict(
    rows: Rows, budget: Budget, latency_error: float = 0.05, memory_error: float = 0.1, file_format: str = "onnx-fp32"
) -> TargetPredictions:
    """Return predictions for one target, named after its format."""
    _, latency, memory = np.array(rows).T
    return TargetPredictions(
        f"board-{file_format}", file_format, budget, latency, np.full(len(rows), latency_error), memory, memory_error
    )


def estimate(rows: Rows, std: float = 0.0) -> AccuracyEstimates:
    return AccuracyEstimates(np.array(rows)[:, 0], np.full(len(rows), std))


def order(rows: Rows, budget: Budget) -> list[int]:
    """Return the likely candidates in the order in which they are tried where all fail."""
    target = predict(rows, budget, 1e-9, 1e-9)
    candidates, found = Candidates(estimate(rows), [[target]]), list[int]()
    while (candidate := candidates.best()) is not None and candidate.is_likely:
        found.append(candidate.index)
        candidates.reject(candidate, target)
    return found


def test_the_most_accurate_comes_first_and_the_faster_of_equals() -> None:
    """Within 3.001 ms: 0.95 at 2.5 ms, 0.95 at 3 ms, 0.90, 0.80."""
    assert order(_ROWS, Budget(latency="3.001ms")) == [3, 2, 1, 0]


def test_all_limits_hold() -> None:
    """Within 3 ms and 3 MB, a little more, only two remain."""
    assert order(_ROWS, Budget(latency="3.001ms", memory="3001kB")) == [2, 1]


def test_memory_alone_is_a_budget() -> None:
    """Without a latency limit the slowest subnet is a candidate too."""
    assert order(_ROWS, Budget(memory="2001kB")) == [4, 2]


class Device:
    """A made-up device: every candidate is measured at these factors of its predicted latency and memory."""

    def __init__(self, rows: Rows, latency: float = 1.0, memory: float = 1.0) -> None:
        self.rows, self.tried = rows, list[int]()
        self.latency_ms, self.peak_bytes = np.array(rows)[:, 1] * latency, np.array(rows)[:, 2] * memory

    def choose(self, budget: Budget) -> int | None:
        """Return the first candidate that keeps the budget here; all that were tried are in ``tried``."""
        target = predict(self.rows, budget)
        candidates = Candidates(estimate(self.rows), [[target]])
        while (candidate := candidates.best()) is not None:
            index = candidate.index
            self.tried.append(index)
            if self.latency_ms[index] <= budget.latency_ms and self.peak_bytes[index] <= budget.memory_bytes:
                return index
            target.learn(index, float(self.latency_ms[index]), float(self.peak_bytes[index]))
            candidates.reject(candidate, target)
        return None


@pytest.mark.parametrize("factor", [1.001, 1.03, 1.2])
@pytest.mark.parametrize("quantity", ["latency", "memory"])
def test_predictions_that_are_too_low_cost_one_try(quantity: str, factor: float) -> None:
    """Whatever a device takes more than predicted, the first candidate tells, and the second is the best that fits."""
    device = Device(_DENSE, **{quantity: factor})
    budget = Budget(latency="1.3ms") if quantity == "latency" else Budget(memory="1.3MB")
    costs, limit = (
        (device.latency_ms, budget.latency_ms) if quantity == "latency" else (device.peak_bytes, budget.memory_bytes)
    )
    chosen = device.choose(budget)
    assert chosen == np.flatnonzero(costs <= limit)[-1]
    assert len(device.tried) <= 2


@pytest.mark.parametrize("quantity", ["latency", "memory"])
def test_a_budget_that_nothing_keeps_costs_few_tries(quantity: str) -> None:
    """Where the smallest is predicted just below the budget and all take 5% more, four tries show it, not twenty."""
    device = Device(_DENSE, **{quantity: 1.05})
    assert device.choose(Budget(latency="1.04ms") if quantity == "latency" else Budget(memory="1.04MB")) is None
    assert len(device.tried) == 4
    assert device.tried[1:] == sorted(device.tried[1:])  # the likeliest, which is the smallest, comes first


def test_right_predictions_cost_one_try() -> None:
    """Where predictions are right, the most accurate candidate is tried and kept, at the very limit too."""
    device = Device(_DENSE)
    assert device.choose(Budget(latency=f"{_DENSE[40][1]}ms")) == 40
    assert device.tried == [40]


@pytest.mark.parametrize(("memory", "first"), [("2MB", 0), ("2.2MB", 1)])
def test_a_candidate_at_both_limits_is_not_tried_first(memory: str, first: int) -> None:
    """One that keeps two limits by a hair, with a quarter of a chance, waits for one that keeps one by a hair."""
    rows = ((0.9, 1.0, 1.0e6), (0.95, 2.0, 1.98e6))
    best = Candidates(estimate(rows), [[predict(rows, Budget(latency="2ms", memory=memory))]]).best()
    assert best is not None
    assert best.index == first


def test_without_a_measured_memory_nothing_is_learned_of_it() -> None:
    """A device that does not report memory leaves its predictions as they are."""
    target = predict(_DENSE, Budget(memory="1.3MB"))
    candidates = Candidates(estimate(_DENSE), [[target]])
    first = candidates.best()
    assert first is not None
    target.learn(first.index, 1.0, None)
    candidates.reject(first, target)
    second = candidates.best()
    assert second is not None
    assert second.index == first.index - 1


def test_what_may_be_the_best_counts_by_the_upper_end_of_its_prediction() -> None:
    """0.90 that was evaluated is behind 0.89 ± 0.02, until that is evaluated at 0.88."""
    rows = ((0.90, 1.0, 1e6), (0.89, 1.0, 1e6))
    estimates = estimate(rows, std=0.02)
    candidates = Candidates(estimates, [[predict(rows, Budget(latency="2ms"))]])
    estimates.learn(0, "onnx-fp32", 0.90)
    best = candidates.best()
    assert best is not None
    assert best.index == 1
    estimates.learn(1, "onnx-fp32", 0.88)
    best = candidates.best()
    assert best is not None
    assert best.index == 0


def test_what_one_file_loses_is_expected_of_the_others_of_its_format() -> None:
    """int8 runs a larger subnet in time, but its first file loses five points: then fp32 is the better one."""
    rows = ((0.90, 1.0, 1e6), (0.93, 2.0, 1e6), (0.932, 2.1, 1e6))
    whole = predict(rows, Budget(latency="1.5ms"))
    eighth = predict([(row[0], row[1] / 2, row[2]) for row in rows], Budget(latency="1.5ms"), file_format="onnx-int8")
    estimates = estimate(rows)
    candidates = Candidates(estimates, [[whole, eighth]])
    best = candidates.best()
    assert best is not None
    assert (best.index, best.targets) == (2, (eighth,))
    estimates.learn(2, "onnx-int8", 0.882)
    best = candidates.best()
    assert best is not None
    assert (best.index, best.targets) == (0, (whole,))


def test_one_file_runs_on_the_faster_target() -> None:
    """Of two targets that run the same file, the one that takes less of the budget is chosen."""
    rows = ((0.90, 1.0, 1e6),)
    one, four = predict(rows, Budget(latency="2ms")), predict([(0.9, 0.4, 1e6)], Budget(latency="2ms"))
    best = Candidates(estimate(rows), [[one, four]]).best()
    assert best is not None
    assert best.targets == (four,)


def test_of_several_devices_all_budgets_are_kept() -> None:
    """The most accurate subnet breaks the second budget, the next the first: the third keeps both."""
    rows = ((0.93, 1.0, 1e6), (0.92, 3.0, 1e6), (0.91, 1.0, 1e6))
    first = predict(rows, Budget(latency="2ms"))
    second = predict([(0.93, 9.0, 1e6), (0.92, 2.0, 1e6), (0.91, 5.0, 1e6)], Budget(latency="6ms"))
    best = Candidates(estimate(rows), [[first], [second]]).best()
    assert best is not None
    assert (best.index, best.targets) == (2, (first, second))


def test_a_subnet_that_failed_on_a_target_may_run_on_another() -> None:
    """Rejected on one target of a device, the subnet is tried on the other one."""
    rows = ((0.9, 1.0, 1e6), (0.8, 1.0, 1e6))
    one, four = predict(rows, Budget(latency="2ms")), predict(rows, Budget(latency="2ms"), file_format="tflite-fp32")
    candidates = Candidates(estimate(rows), [[one, four]])
    first = candidates.best()
    assert first is not None
    candidates.reject(first, one)
    second = candidates.best()
    assert second is not None
    assert (second.index, second.targets) == (0, (four,))


def test_an_expected_accuracy_is_a_share() -> None:
    """What a collapsed file lost cannot make another one's less than nothing, nor a gain more than all."""
    for predicted, found in (([0.76, 0.748], 0.001), ([0.5, 0.9], 0.8)):
        estimates = AccuracyEstimates(np.array(predicted), np.zeros(2))
        estimates.learn(0, "int8", found)
        assert 0 <= estimates.expected(1, "int8") <= 1
