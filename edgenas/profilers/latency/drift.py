"""Covariances of measured values by drift of the device's speed over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgenas.costs import Vector


@dataclass(frozen=True)
class Drift:
    """A change of speed with a correlation time of ``seconds``: relative or, if ``added``, an equal amount for all.

    A slower clock is relative. Other programs in a shared cache, through which all networks read their weights,
    add the same amount to small networks as to large ones.
    """

    seconds: float
    added: bool


DRIFTS = {
    "drift 5 s": Drift(5.0, False),
    "drift 40 s": Drift(40.0, False),
    "drift 5 s added": Drift(5.0, True),
    "drift 40 s added": Drift(40.0, True),
}
_SECONDS = sorted({drift.seconds for drift in DRIFTS.values()})


def drift_covariances(at_s: Vector, units: Vector, *, around_mean: bool = True) -> dict[str, Vector]:
    """Return the covariance (N, N) of values measured at times (N,), for each drift term at a variance of one.

    Args:
        at_s: When each value was measured, seconds.
        units: The amount that an added drift of one adds, as a share of each value (N,).
        around_mean: Remove the mean drift of the values: the part costs explain the mean speed.
    """
    kernels = {seconds: _exponential_kernel(at_s, at_s, seconds) for seconds in _SECONDS}
    if around_mean:
        kernels = {
            seconds: _center_covariance(kernel, kernel.mean(axis=0), kernel.mean(axis=0))
            for seconds, kernel in kernels.items()
        }
    return _covariances_by_drift(kernels, units, units)


def cross_drift_covariances(at_s: Vector, units: Vector, other_s: Vector, other_units: Vector) -> dict[str, Vector]:
    """Return the covariance (M, N) of values at other times (M,) and these (N,), around the mean over these.

    See ``drift_covariances``.
    """
    kernels = {}
    for seconds in _SECONDS:
        cross, own = _exponential_kernel(other_s, at_s, seconds), _exponential_kernel(at_s, at_s, seconds)
        kernels[seconds] = _center_covariance(cross, cross.mean(axis=1), own.mean(axis=0))
    return _covariances_by_drift(kernels, other_units, units)


def mean_drift_variances(at_s: Vector) -> dict[str, float]:
    """Return the variance of the mean drift over times (N,), for each drift term at a variance of one."""
    means = {seconds: float(_exponential_kernel(at_s, at_s, seconds).mean()) for seconds in _SECONDS}
    return {name: means[drift.seconds] for name, drift in DRIFTS.items()}


def drift_variance(variances: Mapping[str, float], units: Vector) -> Vector:
    """Return the relative variance (M,) of values by all drift terms; ``units`` (M,) as in ``drift_covariances``."""
    terms = [
        variances[name] * (np.square(units) if drift.added else np.ones(len(units))) for name, drift in DRIFTS.items()
    ]
    return np.asarray(np.sum(terms, axis=0), dtype=np.float64)


def _exponential_kernel(first_s: Vector, second_s: Vector, seconds: float) -> Vector:
    return np.asarray(np.exp(-np.abs(first_s[:, None] - second_s) / seconds), dtype=np.float64)


def _center_covariance(kernel: Vector, row_means: Vector, column_means: Vector) -> Vector:
    """Remove the mean over the columns' values from a covariance."""
    return np.asarray(kernel - row_means[:, None] - column_means + column_means.mean(), dtype=np.float64)


def _covariances_by_drift(
    kernels: Mapping[float, Vector], row_units: Vector, column_units: Vector
) -> dict[str, Vector]:
    return {
        name: row_units[:, None] * kernels[drift.seconds] * column_units if drift.added else kernels[drift.seconds]
        for name, drift in DRIFTS.items()
    }
