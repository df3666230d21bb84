"""Covariances of measured values by drift of the device's speed over time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgenas.costs import Vector

# A drift is relative, or an equal amount for all. A slower clock is relative. Other programs in a shared cache, through
# which all networks read their weights, add the same amount to small networks as to large ones.
RELATIVE, ADDED = DRIFTS = ("drift", "drift added")
_CORRELATION_S = 40.0


def drift_covariances(at_s: Vector, units: Vector, *, around_mean: bool = True) -> dict[str, Vector]:
    """Return the covariance (N, N) of values measured at times (N,), for each drift term at a variance of one.

    Args:
        at_s: When each value was measured, seconds.
        units: The amount that an added drift of one adds, as a share of each value (N,).
        around_mean: Remove the mean drift of the values: the part costs explain the mean speed.
    """
    kernel = _exponential_kernel(at_s, at_s)
    if around_mean:
        kernel = _center_covariance(kernel, kernel.mean(axis=0), kernel.mean(axis=0))
    return {RELATIVE: kernel, ADDED: units[:, None] * kernel * units}


def cross_drift_covariances(at_s: Vector, units: Vector, other_s: Vector, other_units: Vector) -> dict[str, Vector]:
    """Return the covariance (M, N) of values at other times (M,) and these (N,), around the mean over these.

    See ``drift_covariances``.
    """
    cross, own = _exponential_kernel(other_s, at_s), _exponential_kernel(at_s, at_s)
    kernel = _center_covariance(cross, cross.mean(axis=1), own.mean(axis=0))
    return {RELATIVE: kernel, ADDED: other_units[:, None] * kernel * units}


def mean_drift_variances(at_s: Vector) -> dict[str, float]:
    """Return the variance of the mean drift over times (N,), for each drift term at a variance of one."""
    return dict.fromkeys(DRIFTS, float(_exponential_kernel(at_s, at_s).mean()))


def drift_variance(variances: Mapping[str, float], units: Vector) -> Vector:
    """Return the relative variance (M,) of values by both drift terms; ``units`` (M,) as in ``drift_covariances``."""
    return np.asarray(variances[RELATIVE] + variances[ADDED] * np.square(units), dtype=np.float64)


def _exponential_kernel(first_s: Vector, second_s: Vector) -> Vector:
    return np.asarray(np.exp(-np.abs(first_s[:, None] - second_s) / _CORRELATION_S), dtype=np.float64)


def _center_covariance(kernel: Vector, row_means: Vector, column_means: Vector) -> Vector:
    """Remove the mean over the columns' values from a covariance."""
    return np.asarray(kernel - row_means[:, None] - column_means + column_means.mean(), dtype=np.float64)
