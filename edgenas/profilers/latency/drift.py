"""What values have in common that were measured at about one time: the device was slower or faster then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgenas.costs import Vector


@dataclass(frozen=True)
class Drift:
    """What all values share for some ``seconds``: the same share of each or, where ``added``, the same amount.

    A slower clock is a share; other programs in a cache that all networks read
    their weights through add to small ones what they add to large ones.
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


def drifts(at_s: Vector, units: Vector, *, around_mean: bool = True) -> dict[str, Vector]:
    """The covariance (N, N) of what values share at times (N,), by each term, at a strength of one.

    Around its mean over the values: how fast the device was on the whole is for
    the parts to say. ``units`` (N,): what is added as a share of each value.
    """
    alike = {seconds: _alike(at_s, at_s, seconds) for seconds in _SECONDS}
    if around_mean:
        alike = {seconds: _around(each, each.mean(axis=0), each.mean(axis=0)) for seconds, each in alike.items()}
    return _exposed(alike, units, units)


def cross_drifts(at_s: Vector, units: Vector, then_s: Vector, then_units: Vector) -> dict[str, Vector]:
    """The same between values at other times (M,) and these (N,): (M, N) by each term, around the mean over these."""
    alike = {}
    for seconds in _SECONDS:
        cross, own = _alike(then_s, at_s, seconds), _alike(at_s, at_s, seconds)
        alike[seconds] = _around(cross, cross.mean(axis=1), own.mean(axis=0))
    return _exposed(alike, then_units, units)


def _around(cross: Vector, rows: Vector, columns: Vector) -> Vector:
    """Covariances with what the mean of the columns has in common taken out."""
    return np.asarray(cross - rows[:, None] - columns + columns.mean(), dtype=np.float64)


def _exposed(alike: Mapping[float, Vector], rows: Vector, columns: Vector) -> dict[str, Vector]:
    return {
        name: rows[:, None] * alike[drift.seconds] * columns if drift.added else alike[drift.seconds]
        for name, drift in DRIFTS.items()
    }


def mean_drifts(at_s: Vector) -> dict[str, float]:
    """The variance of that mean by each term: how far the device may have been from its usual speed on the whole."""
    means = {seconds: float(_alike(at_s, at_s, seconds).mean()) for seconds in _SECONDS}
    return {name: means[drift.seconds] for name, drift in DRIFTS.items()}


def drift_variance(variances: Mapping[str, float], units: Vector) -> Vector:
    """The variance (M,) by the variance of each drift, relative to values of which ``units`` (M,) is what is added."""
    terms = [
        variances[name] * (np.square(units) if drift.added else np.ones(len(units))) for name, drift in DRIFTS.items()
    ]
    return np.asarray(np.sum(terms, axis=0), dtype=np.float64)


def _alike(first_s: Vector, second_s: Vector, seconds: float) -> Vector:
    return np.asarray(np.exp(-np.abs(first_s[:, None] - second_s) / seconds), dtype=np.float64)
