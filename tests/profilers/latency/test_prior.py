"""Non-negative least squares, against values derived by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgenas.profilers.latency.prior import fit_non_negative


def test_weights_by_hand() -> None:
    """Two columns of very different units get their weights."""
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


def test_sample_weights_decide_between_values_that_disagree() -> None:
    """Of two values for one column, the one with a weight wins."""
    columns, values = np.ones((2, 1)), np.array([1.0, 2.0])
    assert fit_non_negative(columns, values, np.array([1.0, 0.0])) == pytest.approx([1.0])
    assert fit_non_negative(columns, values, np.array([0.0, 1.0])) == pytest.approx([2.0])


def test_a_penalty_draws_a_weight_to_zero() -> None:
    """One value of 1, and a penalty of 2: the least of (w - 1)^2 + (2 w)^2 lies at 1 / 5."""
    weights = fit_non_negative(np.ones((1, 1)), np.ones(1), penalty=np.array([2.0]))
    assert weights == pytest.approx([0.2])
