"""Confidence intervals of the median of a process's runs, of the median over processes, and of ratios."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgenas.errors import MeasurementError
from edgenas.on_device.sampling import BLOCKS, STUDENT_T

# The fewest values whose extremes bound their median at 95%.
MIN_PROCESSES = 6
_MIN_GAP = 0.05  # between two modes
# Variance of the median of 2 to 5 values from a normal distribution, by its own: D. Teichroew, Tables of expected
# values of order statistics, Annals of Mathematical Statistics 27 (1956) 410.
_MEDIAN_VARIANCE = {2: 0.5, 3: 0.448671, 4: 0.298191, 5: 0.286833}


def median_with_interval(samples: Sequence[float] | npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the median of a process's runs and the ends of its 95% confidence interval.

    Runs that follow each other are correlated, so a formula for independent
    samples gives an interval that is too narrow. Sectioning: the samples are cut
    into 10 blocks in order of time (into single runs when there are fewer);
    medians of blocks that are longer than the correlation are nearly
    independent, and with the overall median M and the K block medians m_i the
    interval is M ± t(K-1) * sqrt(sum (m_i - M)² / ((K-1) K)).
    Source: S. Asmussen and P. Glynn, Stochastic Simulation (2007), III.5a; for
    quantiles M. Nakayama, Confidence intervals for quantiles using sectioning,
    ACM TOMACS 24(4), 2014.

    Args:
        samples: single runs in the order taken, in any unit.

    Returns:
        Median, lower end and upper end, in the unit of ``samples``.

    Raises:
        MeasurementError: for fewer than two samples.
    """
    values = np.asarray(samples, dtype=np.float64)
    if len(values) < 2:
        raise MeasurementError(f"an interval needs at least 2 runs, but got {len(values)}; raise min_runs")
    blocks = min(BLOCKS, len(values))
    median = float(np.median(values))
    medians = np.array([np.median(block) for block in np.array_split(values, blocks)])
    variance = float(((medians - median) ** 2).sum()) / (blocks - 1)
    half = STUDENT_T[blocks - 2] * math.sqrt(variance / blocks)
    return median, median - half, median + half


def median_of_medians_with_interval(medians: Sequence[float]) -> tuple[float, float, float]:
    """Return the median of the medians of processes and the ends of its 95% confidence interval.

    The same file runs at another speed in each process (where its memory
    lies, what else the machine does then), so the interval from the runs of one
    process is too narrow to compare two: the processes are the independent
    repetitions, as in T. Kalibera and R. Jones, Rigorous benchmarking in
    reasonable time, ISMM 2013. From six on, the ends are the k-th smallest and
    k-th largest median, with k from the binomial distribution; a few slow
    processes do not move them: H. David and H. Nagaraja, Order Statistics (2003),
    7.1. Two to five are taken as values of a normal distribution: the ends are
    M ± t(n-1) s sqrt(v_n), with s their deviation and v_n the variance of the
    median of n standard normal values.

    Args:
        medians: one value for each process, in any unit; at least two.

    Returns:
        Median, lower end and upper end, in the unit of ``medians``.

    Raises:
        MeasurementError: for fewer than two medians.
    """
    values, number = sorted(medians), len(medians)
    if number < 2:
        raise MeasurementError(f"an interval needs at least 2 processes, but got {number}; raise processes")
    median = statistics.median(values)
    if number >= MIN_PROCESSES:
        rank = _interval_rank(number)
        return median, values[rank - 1], values[-rank]
    half = STUDENT_T[number - 2] * statistics.stdev(values) * math.sqrt(_MEDIAN_VARIANCE[number])
    return median, median - half, median + half


def _interval_rank(number: int) -> int:
    """Return the largest k for which fewer than k of ``number`` values fall below their median with at most 2.5%."""
    rank, tail = 0, 1
    while 40 * tail <= 2**number:
        rank += 1
        tail += math.comb(number, rank)
    return rank


def range_of_block_medians(processes: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the range that holds 95% of the medians of tenths of processes: where a later call's median may lie.

    A machine's speed also changes more slowly than one call can see, by other programs and by heat, so the interval
    of a call's median rarely holds the medians of later calls. What a tenth of a process, some milliseconds, differs
    by is faster noise, but wide enough to stand for it: measured in ``benchmarks/measuring.md``.

    Args:
        processes: The single runs of each process in the order taken, in any unit.
    """
    medians = [float(np.median(block)) for runs in processes for block in np.array_split(runs, min(BLOCKS, len(runs)))]
    return percentile(medians, 2.5), percentile(medians, 97.5)


def find_modes(medians: Sequence[float]) -> list[tuple[float, int]]:
    """Return the median and the number of processes of each of two speeds that a file settles at; empty for one speed.

    Two groups of two or more processes count as modes when the gap between them is at least 5% and twice what either
    spans.
    """
    values = sorted(medians)
    cuts = range(2, len(values) - 1)
    cut = max(cuts, key=lambda place: values[place] / values[place - 1], default=0)
    groups = values[:cut], values[cut:]
    if not cut or values[cut] / values[cut - 1] < 1 + _MIN_GAP:
        return []
    if values[cut] - values[cut - 1] < 2 * max(group[-1] - group[0] for group in groups):
        return []
    return [(statistics.median(group), len(group)) for group in groups]


def count_processes_needed(medians: Sequence[float], relative_half_width: float) -> int:
    """Return how many processes in all would narrow half the interval of their median to this share of the median.

    Half the interval shrinks with the root of the number. The result is at most twice as many
    as there are, since the width is itself uncertain, and at least three more, since
    an order-statistic interval may not move otherwise; as many as there are when they
    suffice. With numbers chosen in this way, intervals of simulated processes cover
    the true median as often as those of a fixed number.
    """
    median, low, high = median_of_medians_with_interval(medians)
    number, half = len(medians), (high - low) / 2
    if half <= relative_half_width * median:
        return number
    return max(number + 3, min(2 * number, math.ceil(number * (half / (relative_half_width * median)) ** 2)))


def median_ratio_with_interval(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Return the median ratio of two or more pairs, first to second, and the ends of its 95% interval.

    Pairs of the same round saw the same state of the machine, which cancels in
    their ratio. Computed on logarithms, where ratios are differences.
    """
    median, low, high = median_of_medians_with_interval([math.log(first / second) for first, second in pairs])
    return math.exp(median), math.exp(low), math.exp(high)


def ratio_interval(now: tuple[float, float, float], then: tuple[float, float, float]) -> tuple[float, float]:
    """Return the 95% interval of ``now / then``, each a median and the ends of its 95% interval.

    Computed on logarithms, where the ratio is a difference, by the method of variance
    estimates recovery: the distance of each end from the ratio is the root of the summed
    squares of the distances of the two ends that push it there from their medians.
    Source: G. Zou and A. Donner, Construction of confidence limits about effect
    measures: a general approach, Statistics in Medicine 27 (2008) 1693.
    """
    (median, low, high), (median_then, low_then, high_then) = now, then
    below = math.hypot(math.log(median / low), math.log(high_then / median_then))
    above = math.hypot(math.log(high / median), math.log(median_then / low_then))
    ratio = median / median_then
    return ratio * math.exp(-below), ratio * math.exp(above)


def percentile(samples: Sequence[float] | npt.NDArray[np.float64], percent: float) -> float:
    """Return a percentile by linear interpolation between the ordered samples."""
    return float(np.percentile(np.asarray(samples, dtype=np.float64), percent))
