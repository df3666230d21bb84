"""Drift of measured values: what the device's speed at their moments does to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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

    @cached_property
    def slowness(self) -> Vector:
        """The logarithm (N,) of the speed probe's time over its median; 0 where it was not run."""
        known = self.probe_ms[~np.isnan(self.probe_ms)]
        return np.nan_to_num(np.log(self.probe_ms / np.median(known))) if len(known) else np.zeros(len(self.at_s))


def drift_covariances(moments: Moments, units: Vector) -> dict[str, Vector]:
    """Return the covariance (N, N) of values measured at moments (N,), for each drift term at a variance of one.

    It is around the mean over the values: the part costs explain the mean speed.

    Args:
        moments: When each value was measured.
        units: The amount that an added drift of one adds, as a share of each value (N,).
    """
    kernel = _exponential_kernel(moments.at_s)
    kernel = kernel - kernel.mean(axis=0)[:, None] - kernel.mean(axis=0) + kernel.mean()
    probe = np.outer(moments.slowness, moments.slowness)
    return {RELATIVE: kernel, ADDED: units[:, None] * kernel * units, PROBE: probe}


def mean_drift_variances(moments: Moments) -> dict[str, float]:
    """Return the variance of the mean drift over moments (N,), for each term of drift over time at a variance of one.

    There is none of the speed probe: values refer to its median time.
    """
    return dict.fromkeys((RELATIVE, ADDED), float(_exponential_kernel(moments.at_s).mean()))


def drift_variance(variances: Mapping[str, float], units: Vector) -> Vector:
    """Return the relative variance (M,) of values by drift over time; ``units`` (M,) as in ``drift_covariances``."""
    return np.asarray(variances[RELATIVE] + variances[ADDED] * np.square(units), dtype=np.float64)


def _exponential_kernel(at_s: Vector) -> Vector:
    return np.asarray(np.exp(-np.abs(at_s[:, None] - at_s) / _CORRELATION_S), dtype=np.float64)
