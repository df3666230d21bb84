"""The median of correlated runs, and how well it is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgenas.errors import MeasurementError

BLOCKS = 10
# 97.5% quantiles of Student's t with 1 to BLOCKS - 1 degrees of freedom.
_STUDENT_T = (12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157)


def median_interval(samples: Sequence[float] | npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """The median and the ends of its 95% confidence interval, in the unit of ``samples`` (in the order taken).

    Runs that follow each other are correlated, so a formula for independent
    samples gives an interval that is too narrow. Sectioning: the samples are cut
    into 10 blocks in order of time (into single runs when there are fewer);
    medians of blocks that are longer than the correlation are nearly
    independent, and with the overall median M and the K block medians m_i the
    interval is M ± t(K-1) * sqrt(sum (m_i - M)² / ((K-1) K)).
    Source: S. Asmussen and P. Glynn, Stochastic Simulation (2007), III.5a; for
    quantiles M. Nakayama, Confidence intervals for quantiles using sectioning,
    ACM TOMACS 24(4), 2014. Raises MeasurementError for fewer than two samples.
    """
    values = np.asarray(samples, dtype=np.float64)
    if len(values) < 2:
        raise MeasurementError(f"an interval needs at least 2 runs, but got {len(values)}; raise min_runs")
    blocks = min(BLOCKS, len(values))
    median = float(np.median(values))
    medians = np.array([np.median(block) for block in np.array_split(values, blocks)])
    variance = float(((medians - median) ** 2).sum()) / (blocks - 1)
    half = _STUDENT_T[blocks - 2] * math.sqrt(variance / blocks)
    return median, median - half, median + half


def percentile(samples: Sequence[float] | npt.NDArray[np.float64], percent: float) -> float:
    """A percentile by linear interpolation between the ordered samples."""
    return float(np.percentile(np.asarray(samples, dtype=np.float64), percent))
