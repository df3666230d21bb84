"""One model file measured in several processes, which are the independent repetitions of a measurement."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from edgenas.profilers.measurement import Measurement

# The fewest values whose extremes bound their median at 95%.
FEWEST = 6


@dataclass(frozen=True)
class Rounds:
    """Measurements of one file, six or more, each from a process of its own."""

    measurements: tuple[Measurement, ...]

    @property
    def median_ms(self) -> float:
        """The median over the processes of their median latency of one run."""
        return median_of_rounds(self.measurements)[0]

    @property
    def interval_ms(self) -> tuple[float, float]:
        """The ends of the 95% confidence interval of ``median_ms``."""
        return median_of_rounds(self.measurements)[1:]

    @property
    def peak_bytes(self) -> int | None:
        """The most memory that any process held above one without a model; None where the device does not say."""
        peaks = [each.peak_bytes for each in self.measurements]
        return None if None in peaks else max(peak for peak in peaks if peak is not None)

    @property
    def verdict(self) -> str:
        """The verdicts of the processes, equal ones once."""
        return "; ".join(dict.fromkeys(str(each.verdict) for each in self.measurements))

    @property
    def synthetic(self) -> bool:
        """Whether the numbers are made up, by a fake device."""
        return any(each.synthetic for each in self.measurements)


def sift(taken: Sequence[Measurement]) -> tuple[tuple[Measurement, ...], tuple[str, ...]]:
    """The measurements that were not refused; and, where these are fewer than six, why the others were."""
    usable = tuple(each for each in taken if each.verdict.status != "refused")
    reasons = tuple(reason for each in taken if each.verdict.status == "refused" for reason in each.verdict.reasons)
    return usable, tuple(dict.fromkeys(reasons)) if len(usable) < FEWEST else ()


def median_of_rounds(measurements: Sequence[Measurement]) -> tuple[float, float, float]:
    """The median of the medians of six or more processes and the ends of its 95% confidence interval, milliseconds.

    The same file settles at another speed in each process (where its memory
    lies, what else the machine does then), so the interval from the runs of one
    process is too narrow for comparing two: the processes are the independent
    repetitions, as in T. Kalibera and R. Jones, Rigorous benchmarking in
    reasonable time, ISMM 2013. The ends are the k-th smallest and k-th largest
    median, with k from the binomial distribution, which a few slow processes do
    not move: H. David and H. Nagaraja, Order Statistics (2003), 7.1.
    """
    medians = sorted(measurement.median_ms for measurement in measurements)
    rank = _rank(len(medians))
    return statistics.median(medians), medians[rank - 1], medians[-rank]


def _rank(number: int) -> int:
    """The largest k for which fewer than k of ``number`` values fall below their median with at most 2.5%."""
    rank, tail = 0, 1
    while 40 * tail <= 2**number:
        rank += 1
        tail += math.comb(number, rank)
    return rank
