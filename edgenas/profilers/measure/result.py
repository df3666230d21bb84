"""One model file measured in several processes, which are the independent repetitions of a measurement."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from edgenas.errors import MeasurementError, UsageError
from edgenas.files import format_value
from edgenas.profilers.measure.cpu_speed import speed_variation
from edgenas.profilers.measure.measurement import Measurement, format_median_with_interval, incomparable_facts
from edgenas.profilers.measure.statistics import (
    MIN_PROCESSES,
    find_modes,
    median_of_medians_with_interval,
    median_ratio_with_interval,
    percentile,
    range_of_block_medians,
    ratio_interval,
)
from edgenas.profilers.measure.validity import Validity
from edgenas.units import format_ms, format_ms_interval


@dataclass(frozen=True)
class MeasurementResult:
    """Measurements of one model file, each from a process of its own. Latencies are in ms, intervals at 95%.

    Attributes:
        measurements: the processes that count.
        rejected: processes that were rejected while enough others were not.

    Raises:
        UsageError: for no measurement.
        MeasurementError: for measurements of different devices or versions of the runtime.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from edgenas import Target, load_profile, measure_model
        >>> folder = Path(tempfile.mkdtemp())
        >>> fake = "{name: toy, connection: {kind: fake}, runtimes: {onnxruntime: {}}, default: {runtime: onnxruntime}}"
        >>> _ = (folder / "toy.yaml").write_text(fake)
        >>> _ = (folder / "model.onnx").write_bytes(bytes(320_000))
        >>> result = measure_model(folder / "model.onnx", Target(load_profile(folder / "toy.yaml")))
        >>> result
        MeasurementResult(0.321 ms, 95% interval 0.321 to 0.321 ms, 6 processes, synthetic, unverified)
        >>> result.validity.reasons[0][:36]
        'the device does not give governor, f'
    """

    measurements: tuple[Measurement, ...]
    rejected: tuple[Measurement, ...] = ()

    def __post_init__(self) -> None:
        if not self.measurements:
            raise UsageError("a result must have at least one measurement, but got none; measure again")
        for measurement in self.measurements[1:]:
            for what, name, first, other in incomparable_facts(self.measurements[0], measurement):
                raise MeasurementError(
                    f"a result must be of one {what}, but got {name} {format_value(first)} and"
                    f" {format_value(other)}; measure all again"
                )

    @classmethod
    def from_measurements(cls, measurements: Sequence[Measurement], processes: int = 1) -> MeasurementResult:
        """Return the result; rejected measurements count only where fewer than ``processes`` others are left."""
        usable = tuple(measurement for measurement in measurements if not measurement.is_rejected)
        if len(usable) < processes:
            return cls(tuple(measurements))
        return cls(usable, tuple(measurement for measurement in measurements if measurement.is_rejected))

    @property
    def rejection_reasons(self) -> tuple[str, ...]:
        """The reasons for rejection; empty where it is not rejected."""
        return self.validity.reasons if self.validity.status == "rejected" else ()

    @property
    def model_sha256(self) -> str:
        """SHA-256 of the model file."""
        return self.measurements[0].model_sha256

    @property
    def target(self) -> Mapping[str, Any]:
        """Device, runtime, providers, precision and threads that it was measured on."""
        return self.measurements[0].target

    @cached_property
    def _median_with_interval(self) -> tuple[float, float, float]:
        return process_median_with_interval(self.measurements)

    @property
    def median_ms(self) -> float:
        """The median over the processes of their median latency of one run."""
        return self._median_with_interval[0]

    @property
    def interval_ms(self) -> tuple[float, float]:
        """The ends of the 95% confidence interval of ``median_ms`` in this session; later sessions differ by more.

        That of one process is known to be too narrow; those of two to five say little more than how far they differ.
        """
        return self._median_with_interval[1:]

    @cached_property
    def range_ms(self) -> tuple[float, float]:
        """The range in which the median of a later session is expected: 95% of the medians of tenths of processes."""
        return range_of_block_medians([measurement.runs_ms for measurement in self.measurements])

    @cached_property
    def modes(self) -> list[tuple[float, int]]:
        """The median, ms, and the number of processes of each of two speeds; empty where processes have one speed."""
        return find_modes([measurement.median_ms for measurement in self.measurements])

    @property
    def has_interval(self) -> bool:
        """True where there are enough processes for an interval."""
        return len(self.measurements) >= MIN_PROCESSES

    @cached_property
    def p90_ms(self) -> float:
        """The 90th percentile of the runs of all processes."""
        return percentile([run for measurement in self.measurements for run in measurement.runs_ms], 90)

    def percentile_with_interval_ms(self, percent: float) -> tuple[float, float, float]:
        """Return a percentile of the runs of all processes, and the ends of its 95% interval from that of each."""
        percentiles = [percentile(measurement.runs_ms, percent) for measurement in self.measurements]
        runs = [run for measurement in self.measurements for run in measurement.runs_ms]
        return (percentile(runs, percent), *median_of_medians_with_interval(percentiles)[1:])

    @property
    def run_count(self) -> int:
        """The number of timed runs."""
        return sum(len(measurement.samples_ms) for measurement in self.measurements)

    @property
    def speed_variation(self) -> float | None:
        """How much the CPU's speed varied between the runs that count, 0.07 for 7%; None without a speed probe.

        The 90th percentile of the speed probe's times by the 10th, minus 1.
        """
        return speed_variation(self.measurements)

    @property
    def filled_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the inputs whose file leaves dimensions open, as they were run."""
        return self.measurements[0].filled_shapes

    @property
    def disturbed_count(self) -> int:
        """The number of processes that count although the CPU's speed was more than a tenth off the batch's."""
        return sum(measurement.is_disturbed for measurement in self.measurements)

    @property
    def peak_bytes(self) -> int | None:
        """The most memory that any process held above one without a model; None where the device does not say."""
        peaks = [measurement.peak_bytes for measurement in self.measurements]
        return None if None in peaks else max(peak for peak in peaks if peak is not None)

    @property
    def device_s(self) -> float:
        """Device time in all, with the rejected processes."""
        return sum(measurement.device_s for measurement in (*self.measurements, *self.rejected))

    @property
    def validity(self) -> Validity:
        """The worst validity of the processes with its reasons; of reasons that differ only in numbers, the first.

        Rejected processes are counted in a reason of their own. Where they are more than the others,
        the result is rejected.
        """
        validities = [measurement.validity for measurement in self.measurements]
        worst = max(validities, key=lambda validity: _STATUSES.index(validity.status)).status
        reasons = _distinct_reasons(validity for validity in validities if validity.status == worst)
        if self.rejected:
            why = "; ".join(_distinct_reasons(measurement.validity for measurement in self.rejected))
            total = len(self.measurements) + len(self.rejected)
            reasons = (*reasons, f"{len(self.rejected)} of {total} processes rejected: {why}")
        if len(self.rejected) > len(self.measurements):
            return Validity("rejected", reasons[-1:])
        return Validity(worst, reasons)

    @property
    def synthetic(self) -> bool:
        """True where the numbers are made up, by a fake device."""
        return any(measurement.synthetic for measurement in self.measurements)

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics and every measurement as plain data."""
        return {
            "median_ms": self.median_ms,
            "interval_95_ms": list(self.interval_ms) if self.has_interval else None,
            "range_95_ms": list(self.range_ms) if self.has_interval else None,
            "modes": [{"median_ms": median, "processes": count} for median, count in self.modes],
            "p90_ms": self.p90_ms,
            "peak_bytes": self.peak_bytes,
            "processes": len(self.measurements),
            "runs": self.run_count,
            "device_s": self.device_s,
            "filled_shapes": {name: list(shape) for name, shape in self.filled_shapes.items()},
            "speed_variation": self.speed_variation,
            "disturbed": self.disturbed_count,
            "validity": {"status": self.validity.status, "reasons": list(self.validity.reasons)},
            "synthetic": self.synthetic,
            "measurements": [measurement.to_dict() for measurement in self.measurements],
            "rejected": [measurement.to_dict() for measurement in self.rejected],
        }

    def __str__(self) -> str:
        interval = f"95% interval {format_ms_interval(self.interval_ms)}, " if self.has_interval else ""
        made_up = "synthetic, " if self.synthetic else ""
        return f"{format_ms(self.median_ms)} ({interval}{made_up}{self.validity})"

    def __repr__(self) -> str:
        return f"MeasurementResult({self.summary})"

    @property
    def summary(self) -> str:
        """Median, interval, number of processes and validity on one line."""
        median = format_median_with_interval(self.median_ms, self.interval_ms if self.has_interval else None)
        number = len(self.measurements)
        made_up = "synthetic, " if self.synthetic else ""
        return f"{median}, {number} process{'es' * (number > 1)}, {made_up}{self.validity.status}"


_NUMBER = re.compile(r"[\d.]+")
_STATUSES = ("valid", "unverified", "rejected")  # the worst last


def _distinct_reasons(validities: Iterable[Validity]) -> tuple[str, ...]:
    """Return their reasons; of those that differ only in numbers, the first."""
    reasons = [reason for validity in validities for reason in validity.reasons]
    distinct = {_NUMBER.sub("", reason): reason for reason in reversed(reasons)}
    return tuple(reversed(distinct.values()))


def process_median_with_interval(measurements: Sequence[Measurement]) -> tuple[float, float, float]:
    """Return the median of the processes' medians and the ends of its 95% confidence interval, ms."""
    if len(measurements) == 1:
        return (measurements[0].median_ms, *measurements[0].interval_ms)
    return median_of_medians_with_interval([measurement.median_ms for measurement in measurements])


def compare_results(first: MeasurementResult, second: MeasurementResult) -> tuple[float, float, float] | None:
    """Return how many times as long ``first`` takes as ``second``.

    Results of one batch on one target are compared by the ratios within equal rounds, where there
    are six; others by their medians and intervals.

    Returns:
        The ratio and the ends of its 95% interval; None where one result has fewer than six processes.
    """
    if not (first.has_interval and second.has_interval):
        return None
    if pairs := pair_medians(first, second):
        return median_ratio_with_interval(pairs)
    now, then = ((result.median_ms, *result.interval_ms) for result in (first, second))
    return (first.median_ms / second.median_ms, *ratio_interval(now, then))


def pair_medians(first: MeasurementResult, second: MeasurementResult) -> list[tuple[float, float]]:
    """Return the medians, ms, of both results in each round of one batch; empty where these are fewer than six.

    Files of any precision are measured in one batch.
    """
    if {**second.target, "precision": None} != {**first.target, "precision": None}:
        return []
    by_round = {one.round: one.median_ms for one in second.measurements}
    pairs = [(one.median_ms, by_round[one.round]) for one in first.measurements if one.round in by_round]
    return pairs if len(pairs) >= MIN_PROCESSES else []
