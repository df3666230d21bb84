"""How steady the CPU was while models were measured, by the speed probe. Diagnostics: no latency is changed by it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from edgenas.profilers.measure.measurement import Measurement
from edgenas.profilers.measure.statistics import percentile


def median_probe_ms(measurements: Sequence[Measurement]) -> float | None:
    """Return the median of the processes' median times of the speed probe, ms; None without any probe."""
    medians = [one.median_probe_ms for one in measurements if one.median_probe_ms is not None]
    return statistics.median(medians) if medians else None


def speed_variation(measurements: Sequence[Measurement]) -> float | None:
    """Return how much the CPU's speed varied within and between processes, 0.07 for 7%; None without any probe.

    The 90th percentile of the speed probe's times by the 10th, minus 1: a few disturbed runs do not change it.
    """
    times = [time for one in measurements for time in one.probe_ms]
    return percentile(times, 90) / percentile(times, 10) - 1 if times else None


def measurement_with_probe_deviation(measurement: Measurement, usual_ms: float | None) -> Measurement:
    """Return a measurement with how far its speed probe was off the usual time, 0.14 for 14% slower.

    Unchanged where either is unknown.
    """
    if usual_ms is None or measurement.median_probe_ms is None:
        return measurement
    deviation = measurement.median_probe_ms / usual_ms - 1
    return replace(measurement, conditions_after={**measurement.conditions_after, "probe_deviation": deviation})
