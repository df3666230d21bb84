"""Whether fresh errors are what known ones lead to expect."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.profilers.latency.agreement import chance_of_worse, tau_within

_ERRORS = st.lists(st.floats(-0.5, 0.5, allow_subnormal=False), min_size=2, max_size=12)


def test_equal_errors_are_never_a_surprise() -> None:
    """Where all errors are equally large every division is like the one at hand."""
    assert chance_of_worse(np.full(10, -0.03), np.full(10, 0.03)) == 1.0


def test_the_chance_by_hand() -> None:
    """Three fresh errors above all three known ones: one division in 20 is as bad."""
    found = chance_of_worse(np.array([0.1, -0.2, 0.3]), np.array([0.01, -0.02, 0.03]))
    assert found == pytest.approx(1 / comb(6, 3), abs=0.01)  # the standard deviation is 0.002


def test_only_larger_errors_disagree() -> None:
    """Fresh errors that are smaller than the known ones are no reason to doubt them."""
    assert chance_of_worse(np.full(20, 0.01), np.linspace(0.05, 0.1, 40)) == 1.0


def test_alike_errors_disagree_as_rarely_as_the_level_says() -> None:
    """Of 100 checks of errors from one distribution about a twentieth has a probability below 0.05."""
    rng = np.random.default_rng(1)
    draws = rng.normal(0, 0.03, (100, 60))
    below = sum(chance_of_worse(draw[:20], draw[20:]) < 0.05 for draw in draws)
    assert below <= 12  # 5 expected; more than 12 has a probability of 0.1%


@given(fresh=_ERRORS, known=_ERRORS)
def test_the_chance_is_one_and_says_the_same_again(fresh: list[float], known: list[float]) -> None:
    """It is above 0 and at most 1, the same each time, and does not depend on signs."""
    found = chance_of_worse(np.array(fresh), np.array(known))
    assert 0 < found <= 1
    assert found == chance_of_worse(-np.array(fresh), np.array(known))


def test_pairs_of_other_resolutions_do_not_count() -> None:
    """At each of two resolutions one pair: one is ranked as measured and one the wrong way round."""
    genes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    predicted, measured = np.array([1.0, 2.0, 10.0, 11.0]), np.array([1.0, 2.0, 11.0, 10.0])
    assert tau_within(genes, predicted, measured) == 0.0
    assert tau_within(genes[:2], predicted[:2], measured[:2]) == 1.0


def test_without_a_pair_there_is_no_tau() -> None:
    """Subnets that all differ in resolution cannot be ranked at any."""
    assert tau_within(np.array([[0, 0], [1, 0]]), np.ones(2), np.ones(2)) is None
