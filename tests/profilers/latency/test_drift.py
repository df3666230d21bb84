"""Covariances of drift, against values derived by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgenas.profilers.latency.drift import (
    ADDED,
    DRIFTS,
    PROBE,
    RELATIVE,
    Moments,
    drift_covariances,
    drift_variance,
    mean_drift_variances,
)


def test_drift_by_hand() -> None:
    """Two moments that are far apart share nothing: each is half a unit off their mean, which is half as uncertain."""
    at_s = np.array([0.0, 1e6])
    found = drift_covariances(Moments.at(at_s), np.ones(len(at_s)))
    for name in (RELATIVE, ADDED):
        np.testing.assert_allclose(found[name], [[0.5, -0.5], [-0.5, 0.5]])
        assert mean_drift_variances(Moments.at(at_s))[name] == pytest.approx(0.5)


def test_the_speed_probe_by_hand() -> None:
    """Twice and half as slow as the median are one log 2 above and below; an unknown speed is the median one."""
    moments = Moments(np.zeros(4), np.array([4.0, 2.0, 1.0, np.nan]))
    two = np.log(2)
    np.testing.assert_allclose(moments.slowness, [two, 0, -two, 0], atol=1e-12)
    expected = [[two**2, 0, -(two**2), 0], [0] * 4, [-(two**2), 0, two**2, 0], [0] * 4]
    np.testing.assert_allclose(drift_covariances(moments, np.ones(4))[PROBE], expected, atol=1e-12)
    assert PROBE not in mean_drift_variances(moments)


def test_drift_is_the_mean_plus_drift_around_it() -> None:
    """The variances of both add up to one at each moment, and drift around the mean sums to zero."""
    at_s = np.array([0.0, 1.0, 3.0, 20.0, 20.5, 90.0])
    found = drift_covariances(Moments.at(at_s), np.ones(len(at_s)))
    for name in (RELATIVE, ADDED):
        np.testing.assert_allclose(found[name].sum(axis=0), 0, atol=1e-12)
        assert np.trace(found[name]) + 6 * mean_drift_variances(Moments.at(at_s))[name] == pytest.approx(6)


def test_added_drift_is_a_larger_share_of_small_values() -> None:
    """The same amount is twice the share of half the value, and shares of two values vary as their product."""
    at_s, units = np.array([0.0, 1e6]), np.array([1.0, 2.0])
    found = drift_covariances(Moments.at(at_s), units)
    np.testing.assert_allclose(found["drift"], [[0.5, -0.5], [-0.5, 0.5]])
    np.testing.assert_allclose(found["drift added"], [[0.5, -1.0], [-1.0, 2.0]])
    alone = {**dict.fromkeys(DRIFTS, 0.0), "drift": 0.01, "drift added": 0.04}
    np.testing.assert_allclose(drift_variance(alone, units), [0.01 + 0.04, 0.01 + 4 * 0.04])


def test_moments_without_the_speed_probe_are_equally_slow() -> None:
    """Where the probe was not run, nothing is known of the CPU's speed, and it explains nothing."""
    moments = Moments.at(np.array([0.0, 1.0, 3.0]))
    assert moments.slowness.tolist() == [0, 0, 0]
    assert not drift_covariances(moments, np.ones(3))[PROBE].any()
