"""A Gaussian process that is seen through sums, against what can be derived by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgenas.costs import Vector
from edgenas.profilers.part_process import Evidence, PartBasis, PartProcess, fit_non_negative

# Two parts of base cost 1, independent of each other, and no overhead.
_BASIS = PartBasis(np.ones((2, 1)), np.ones((2, 1)), {"own": np.eye(2)}, np.zeros(1))
_STRENGTHS = {"own": 0.04, "detail": 0.0, "overhead": 0.0, "drift 5 s": 0.0, "drift 40 s": 0.0, "noise": 0.01}


def _process(counts: list[list[float]], values: list[float], **changed: float) -> PartProcess:
    count = len(values)
    evidence = Evidence(np.array(counts), np.array(values), np.zeros(count), np.ones(count))
    return PartProcess(_BASIS, evidence, {**_STRENGTHS, **changed})


def test_posterior_by_hand() -> None:
    """Parts deviate by 20%, values by 10% and at least 0.2%: of two values' difference 0.04 / 0.050004 is believed."""
    low, high = _process([[1, 0], [0, 1]], [0.9, 1.1]).costs
    assert high - low == pytest.approx(0.04 / (0.04 + 0.01 + 0.002**2) * (1.1 - 0.9))


def test_spread_by_hand() -> None:
    """What was measured alone is known as well as one measurement says; what was not, as well as before."""
    spread = _process([[1, 0]], [1.0]).spread(np.eye(2))
    noise = 0.01 + 0.002**2
    assert spread.tolist() == pytest.approx([(0.04 * noise / (0.04 + noise)) ** 0.5, 0.2])


def test_sums_are_known_better_than_their_parts() -> None:
    """Where only the sum of two parts was measured, the sum is known and how it divides is not."""
    process = _process([[1, 1]] * 50, [2.0] * 50)
    apart, together = process.spread(np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert together / 2 < 0.02
    assert apart == pytest.approx(0.2 / 2**0.5, rel=0.05)


def test_alike_parts_learn_from_each_other() -> None:
    """A part that was never measured moves with one that is like it by half."""
    basis = PartBasis(np.ones((2, 1)), np.ones((2, 1)), {"own": np.array([[1.0, 0.5], [0.5, 1.0]])}, np.zeros(1))
    counts, values = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([1.0, 1.0])
    process = PartProcess(basis, Evidence(counts, values, np.zeros(2), np.ones(2)), _STRENGTHS)
    measured, alike = process.spread(np.eye(2))
    assert measured < alike < 0.2


def test_values_without_weight_count_less() -> None:
    """A value of little weight moves a cost less than one of full weight."""
    counts, values = np.eye(2), np.array([0.9, 1.1])

    def difference(weights: Vector) -> float:
        costs = PartProcess(_BASIS, Evidence(counts, values, np.zeros(2), weights), _STRENGTHS).costs
        return float(costs[1] - costs[0])

    assert 0 < difference(np.array([0.1, 0.1])) < difference(np.ones(2))


def test_weights_by_hand() -> None:
    """Two columns are taken apart to their weights, however different their units."""
    columns = np.array([[1e-9, 1e9], [2e-9, 1e9], [1e-9, 4e9]])
    # 2e9 * 1e-9 + 3e-9 * 1e9 = 2 + 3, and so on
    assert fit_non_negative(columns, np.array([5.0, 7.0, 14.0])) == pytest.approx([2e9, 3e-9])


def test_weights_are_never_negative() -> None:
    """A column that would want a negative weight gets none."""
    columns = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    assert fit_non_negative(columns, np.array([3.0, 2.0, 1.0]))[1] == 0


def test_an_empty_column_is_harmless() -> None:
    """A feature that no subnet has gets some finite weight."""
    weights = fit_non_negative(np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([1.0, 2.0]))
    assert weights[0] == pytest.approx(1)
    assert np.isfinite(weights).all()


def test_trust_decides_between_values_that_disagree() -> None:
    """Of two values for one column, the trusted one wins."""
    columns, values = np.ones((2, 1)), np.array([1.0, 2.0])
    assert fit_non_negative(columns, values, np.array([1.0, 0.0])) == pytest.approx([1.0])
    assert fit_non_negative(columns, values, np.array([0.0, 1.0])) == pytest.approx([2.0])


def test_a_part_that_would_save_time_is_held_at_nothing() -> None:
    """One part takes 1.0, with another 0.6: the other costs nothing, and the first what least squares then says.

    Noise is relative to what the base costs lead to expect, which is twice as
    much for two parts: x = (4 * 1.0 + 0.6) / 5.
    """
    first, other = _process([[1, 0], [1, 1]], [1.0, 0.6], own=100.0).costs
    assert other == pytest.approx(0, abs=1e-3)
    assert first == pytest.approx(0.92, abs=1e-3)


def test_what_is_least_certain_is_measured_next() -> None:
    """The part that was not measured comes first, then the sum that it is in, and nothing twice."""
    process = _process([[1, 0]] * 20, [1.0] * 20)
    candidates = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert process.most_telling(candidates, 1) == [1]
    assert sorted(process.most_telling(candidates, 5)) == [0, 1, 2]


def test_what_tells_the_same_is_not_measured_twice() -> None:
    """Once one of two equal candidates is chosen, the other is certain to its noise, and a third comes first."""
    basis = PartBasis(np.ones((3, 1)), np.ones((3, 1)), {"own": np.diag([1.0, 1.0, 0.5])}, np.zeros(1))
    evidence = Evidence(np.array([[1.0, 0.0, 0.0]]), np.ones(1), np.zeros(1), np.ones(1))
    process = PartProcess(basis, evidence, _STRENGTHS)
    candidates = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert process.most_telling(candidates, 2) == [0, 2]
