"""Drift of measured values: what the device's speed at their moments does to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from edgenas.costs import Vector
from edgenas.profilers.measure.measurement import Measurement

# A drift is relative, or an equal amount for all. A slower clock is relative. Other programs in a shared cache, through
# which all networks read their weights, add the same amount to small networks as to large ones. What the speed probe
# shows is a factor: a power of the probe's time, whose exponent is fitted.
RELATIVE, ADDED, PROBE = "drift", "drift added", "probe"
DRIFTS = (RELATIVE, ADDED, PROBE)
_CORRELATION_S = 40.0


@dataclass(frozen=True, eq=False)
class Moments:
    """When values were measured, and how slow the CPU was then.

    Attributes:
        at_s: Seconds (N,).
        probe_ms: The median time of the speed probe (N,), ms; NaN where it was not run.
    """

    at_s: Vector
    probe_ms: Vector

    @classmethod
    def at(cls, at_s: Vector) -> Self:
        """Return moments without the speed probe."""
        return cls(at_s, np.full(len(at_s), np.nan))

    @classmethod
    def of(cls, measurements: Sequence[Measurement]) -> Self:
        """Return the moments of measurements."""
        probes = [each.median_probe_ms for each in measurements]
        return cls(
            np.array([each.taken_s for each in measurements], dtype=np.float64),
            np.array([np.nan if each is None else each for each in probes], dtype=np.float64),
        )

    def __getitem__(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Moments:
        return Moments(self.at_s[rows], self.probe_ms[rows])

    @property
    def median_probe_ms(self) -> float:
        """The median time of the speed probe, ms; 1 where it was not run."""
        known = self.probe_ms[~np.isnan(self.probe_ms)]
        return float(np.median(known)) if len(known) else 1.0

    def slowness(self, median_probe_ms: float) -> Vector:
        """Return the logarithm (N,) of the probe's time over the usual one; 0 where it was not run."""
        return np.nan_to_num(np.log(self.probe_ms / median_probe_ms))


def drift_covariances(
    moments: Moments, units: Vector, median_probe_ms: float | None = None, *, around_mean: bool = True
) -> dict[str, Vector]:
    """Return the covariance (N, N) of values measured at moments (N,), for each drift term at a variance of one.

    Args:
        moments: When each value was measured.
        units: The amount that an added drift of one adds, as a share of each value (N,).
        median_probe_ms: The speed probe's time at which values are as they are; by default the median of these.
        around_mean: Remove the mean drift of the values: the part costs explain the mean speed.
    """
    kernel = _exponential_kernel(moments.at_s, moments.at_s)
    if around_mean:
        kernel = _center_covariance(kernel, kernel.mean(axis=0), kernel.mean(axis=0))
    slowness = moments.slowness(median_probe_ms or moments.median_probe_ms)
    return {RELATIVE: kernel, ADDED: units[:, None] * kernel * units, PROBE: np.outer(slowness, slowness)}


def cross_drift_covariances(moments: Moments, units: Vector, others: Moments, other_units: Vector) -> dict[str, Vector]:
    """Return the covariance (M, N) of values at other moments (M,) and these (N,), around the mean over these.

    See ``drift_covariances``.
    """
    cross, own = _exponential_kernel(others.at_s, moments.at_s), _exponential_kernel(moments.at_s, moments.at_s)
    kernel = _center_covariance(cross, cross.mean(axis=1), own.mean(axis=0))
    slowness, other_slowness = (each.slowness(moments.median_probe_ms) for each in (moments, others))
    return {
        RELATIVE: kernel,
        ADDED: other_units[:, None] * kernel * units,
        PROBE: np.outer(other_slowness, slowness),
    }


def mean_drift_variances(moments: Moments) -> dict[str, float]:
    """Return the variance of the mean drift over moments (N,), for each term of drift over time at a variance of one.

    There is none of the speed probe: values refer to its median time.
    """
    return dict.fromkeys((RELATIVE, ADDED), float(_exponential_kernel(moments.at_s, moments.at_s).mean()))


def drift_variance(variances: Mapping[str, float], units: Vector) -> Vector:
    """Return the relative variance (M,) of values by drift over time; ``units`` (M,) as in ``drift_covariances``."""
    return np.asarray(variances[RELATIVE] + variances[ADDED] * np.square(units), dtype=np.float64)


def _exponential_kernel(first_s: Vector, second_s: Vector) -> Vector:
    return np.asarray(np.exp(-np.abs(first_s[:, None] - second_s) / _CORRELATION_S), dtype=np.float64)


def _center_covariance(kernel: Vector, row_means: Vector, column_means: Vector) -> Vector:
    """Remove the mean over the columns' values from a covariance."""
    return np.asarray(kernel - row_means[:, None] - column_means + column_means.mean(), dtype=np.float64)
