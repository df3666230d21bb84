"""The permutation test of fresh errors, and rank correlation within resolutions."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.profilers.latency.agreement import kendall_tau_within_resolution, permutation_p_value

_ERRORS = st.lists(st.floats(-0.5, 0.5, allow_subnormal=False), min_size=2, max_size=12)


def test_equal_errors_have_a_p_value_of_one() -> None:
    """If all errors are equally large, every division is like the actual one."""
    assert permutation_p_value(np.full(10, -0.03), np.full(10, 0.03)) == 1.0


def test_the_p_value_by_hand() -> None:
    """Three fresh errors above all three known ones: one division in 20 is as bad."""
    found = permutation_p_value(np.array([0.1, -0.2, 0.3]), np.array([0.01, -0.02, 0.03]))
    assert found == pytest.approx(1 / comb(6, 3), abs=0.01)  # the standard deviation is 0.002


def test_only_larger_errors_disagree() -> None:
    """Fresh errors that are smaller than the known ones are no reason to reject them."""
    assert permutation_p_value(np.full(20, 0.01), np.linspace(0.05, 0.1, 40)) == 1.0


def test_errors_of_one_distribution_disagree_as_rarely_as_the_level_says() -> None:
    """Of 100 checks of errors from one distribution about a twentieth has a p-value below 0.05."""
    rng = np.random.default_rng(1)
    draws = rng.normal(0, 0.03, (100, 60))
    below = sum(permutation_p_value(draw[:20], draw[20:]) < 0.05 for draw in draws)
    assert below <= 12  # 5 expected; more than 12 has a probability of 0.1%


@given(fresh=_ERRORS, known=_ERRORS)
def test_the_p_value_is_a_probability_and_reproducible(fresh: list[float], known: list[float]) -> None:
    """It is above 0 and at most 1, the same each time, and does not depend on signs."""
    found = permutation_p_value(np.array(fresh), np.array(known))
    assert 0 < found <= 1
    assert found == permutation_p_value(-np.array(fresh), np.array(known))


def test_pairs_of_other_resolutions_do_not_count() -> None:
    """At each of two resolutions one pair: one is ranked as measured and one the wrong way round."""
    genes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    predicted, measured = np.array([1.0, 2.0, 10.0, 11.0]), np.array([1.0, 2.0, 11.0, 10.0])
    assert kendall_tau_within_resolution(genes, predicted, measured) == 0.0
    assert kendall_tau_within_resolution(genes[:2], predicted[:2], measured[:2]) == 1.0


def test_without_a_pair_there_is_no_tau() -> None:
    """Subnets that all differ in resolution cannot be ranked at any."""
    assert kendall_tau_within_resolution(np.array([[0, 0], [1, 0]]), np.ones(2), np.ones(2)) is None
