"""One model file measured in several processes, which are the independent repetitions of a measurement."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from edgenas.errors import MeasurementError, UsageError
from edgenas.profilers.measure.measurement import Measurement, differences
from edgenas.profilers.measure.statistics import FEWEST, interval_of_medians, percentile, ratio_interval, ratio_of_pairs
from edgenas.profilers.measure.validity import Validity
from edgenas.units import format_ms


@dataclass(frozen=True)
class MeasurementResult:
    """Measurements of one file, each from a process of its own.

    Raises UsageError for none, MeasurementError for those of different devices
    or versions of the runtime. ``rejected``: processes whose measurement was refused while enough others
    were not. Latencies are in ms; intervals are at 95%.
    """

    measurements: tuple[Measurement, ...]
    rejected: tuple[Measurement, ...] = ()

    def __post_init__(self) -> None:
        if not self.measurements:
            raise UsageError("rounds must have at least one measurement, but got none; measure again")
        for each in self.measurements[1:]:
            for what, name, first, other in differences(self.measurements[0], each):
                raise MeasurementError(
                    f"rounds must be of one {what}, but got {name} {first} and {other}; measure all again"
                )

    @classmethod
    def of(cls, taken: Sequence[Measurement], processes: int = 1) -> MeasurementResult:
        """What was taken and brought to one pace, without the refused where at least ``processes`` others are left."""
        usable = tuple(each for each in taken if not each.rejected)
        if len(usable) < processes:
            return cls(tuple(taken))
        return cls(usable, tuple(each for each in taken if each.rejected))

    @property
    def problems(self) -> tuple[str, ...]:
        """Why it cannot be trusted; nothing where it can."""
        return self.validity.reasons if self.validity.status == "rejected" else ()

    @property
    def model_sha256(self) -> str:
        """Of the model file."""
        return self.measurements[0].model_sha256

    @property
    def target(self) -> Mapping[str, Any]:
        """Device, runtime, providers, precision and threads that it was measured on."""
        return self.measurements[0].target

    @cached_property
    def _interval(self) -> tuple[float, float, float]:
        return median_of_processes(self.measurements)

    @property
    def median_ms(self) -> float:
        """The median over the processes of their median latency of one run."""
        return self._interval[0]

    @property
    def interval_ms(self) -> tuple[float, float]:
        """The ends of the 95% confidence interval of ``median_ms``; of fewer than six processes it is not to be shown.

        That of one is known to be too narrow, those of two to five stand for nothing but how far they differ.
        """
        return self._interval[1:]

    @property
    def has_interval(self) -> bool:
        """Whether there are enough processes for an interval."""
        return len(self.measurements) >= FEWEST

    @cached_property
    def p90_ms(self) -> float:
        """The latency that nine of ten runs stay below."""
        return percentile([run for each in self.measurements for run in each.runs_ms], 90)

    @property
    def runs(self) -> int:
        """How many runs were timed."""
        return sum(len(each.samples_ms) for each in self.measurements)

    @property
    def peak_bytes(self) -> int | None:
        """The most memory that any process held above one without a model; None where the device does not say."""
        peaks = [each.peak_bytes for each in self.measurements]
        return None if None in peaks else max(peak for peak in peaks if peak is not None)

    @property
    def device_s(self) -> float:
        """Device time that it took in all, with what was left out."""
        return sum(each.device_s for each in (*self.measurements, *self.rejected))

    @property
    def validity(self) -> Validity:
        """The worst verdict of the processes with its reasons; of those that differ only in numbers, the first.

        Those left out are counted, and where they are more than the others it is refused.
        """
        validity_counts = [each.validity for each in self.measurements]
        worst = max(validity_counts, key=lambda validity: _BADNESS[validity.status]).status
        reasons = _distinct(validity for validity in validity_counts if validity.status == worst)
        if self.rejected:
            why = "; ".join(_distinct(each.validity for each in self.rejected))
            total = len(self.measurements) + len(self.rejected)
            reasons = (*reasons, f"{len(self.rejected)} of {total} processes left out: {why}")
        if len(self.rejected) > len(self.measurements):
            return Validity("rejected", reasons[-1:])
        return Validity(worst, reasons)

    @property
    def synthetic(self) -> bool:
        """Whether the numbers are made up, by a fake device."""
        return any(each.synthetic for each in self.measurements)

    def to_dict(self) -> dict[str, Any]:
        """What was found, and every measurement, as plain data."""
        return {
            "median_ms": self.median_ms,
            "interval_95_ms": list(self.interval_ms) if self.has_interval else None,
            "p90_ms": self.p90_ms,
            "peak_bytes": self.peak_bytes,
            "processes": len(self.measurements),
            "runs": self.runs,
            "device_s": self.device_s,
            "validity": {"status": self.validity.status, "reasons": list(self.validity.reasons)},
            "synthetic": self.synthetic,
            "measurements": [each.to_dict() for each in self.measurements],
            "rejected": [each.to_dict() for each in self.rejected],
        }

    def __str__(self) -> str:
        low, high = self.interval_ms
        interval = f"95% interval {format_ms(low)} to {format_ms(high)}, " if self.has_interval else ""
        made_up = "synthetic, " if self.synthetic else ""
        return f"{format_ms(self.median_ms)} ({interval}{made_up}{self.validity})"


_NUMBER = re.compile(r"[\d.]+")
_BADNESS = {"valid": 0, "unverified": 1, "rejected": 2}


def _distinct(validity_counts: Iterable[Validity]) -> tuple[str, ...]:
    """Their reasons; of those that differ only in numbers, the first."""
    reasons = [reason for validity in validity_counts for reason in validity.reasons]
    distinct = {_NUMBER.sub("", reason): reason for reason in reversed(reasons)}
    return tuple(reversed(distinct.values()))


def median_of_processes(measurements: Sequence[Measurement]) -> tuple[float, float, float]:
    """The median of the medians of one or more processes and the ends of its 95% confidence interval, milliseconds."""
    if len(measurements) == 1:
        return (measurements[0].median_ms, *measurements[0].interval_ms)
    return interval_of_medians([measurement.median_ms for measurement in measurements])


def compare_results(first: MeasurementResult, second: MeasurementResult) -> tuple[float, float, float] | None:
    """How many times as long ``first`` takes as ``second``: the ratio and its 95% interval.

    For rounds of one batch, or of different targets. From equal rounds where the
    target is the same and six rounds have both; otherwise from the two medians
    and their intervals. None where one has fewer than six processes.
    """
    if not (first.has_interval and second.has_interval):
        return None
    others = {each.round: each.median_ms for each in second.measurements if second.target == first.target}
    pairs = [(each.median_ms, others[each.round]) for each in first.measurements if each.round in others]
    if len(pairs) >= FEWEST:
        return ratio_of_pairs(pairs)
    medians = [(each.median_ms, *each.interval_ms) for each in (first, second)]
    return (first.median_ms / second.median_ms, *ratio_interval(*medians))
