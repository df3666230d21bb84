"""The baseline speed of a device's CPU, and measurements scaled to it (see ``edgenas.on_device.speed_probe``)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from edgenas.on_device.speed_probe import is_same_speed
from edgenas.profilers.measure.measurement import Measurement


def find_baseline_probe_ms(measurements: Sequence[Measurement]) -> float | None:
    """Return the baseline time of the speed probe on the device of these measurements, ms; None without any probe.

    It is the one that the device remembered at the latest of them. Where it
    remembers none, or where these were more than a tenth off it in their latency
    (the device has changed, by another governor for example), it is their own
    median. Rejected measurements do not count where there are others.
    """
    counted = [measurement for measurement in measurements if not measurement.is_rejected] or measurements
    own = [one.median_probe_ms for one in counted if one.median_probe_ms is not None]
    if not own:
        return None
    median = statistics.median(own)
    remembered = [(one.taken_s, one.baseline_probe_ms) for one in counted if one.baseline_probe_ms is not None]
    baseline = max(remembered)[1] if remembered else median
    return baseline if is_same_speed(median, baseline) else median


def scale_to_baseline(measurement: Measurement, base_ms: float | None) -> Measurement:
    """Return a measurement scaled to this time of the speed probe; unchanged without one."""
    if base_ms is None or not measurement.probe_ms:
        return measurement
    return replace(measurement, conditions_after={**measurement.conditions_after, "reference_probe_ms": base_ms})


def scale_to_common_baseline(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Return measurements that are to be compared, scaled to the baseline speed of their device.

    It follows from what the device remembered and from their own speed probes only,
    whatever they were compared with before.
    """
    base_ms = find_baseline_probe_ms(measurements)
    return [scale_to_baseline(measurement, base_ms) for measurement in measurements]


def find_common_baseline_ms(measurements: Sequence[Measurement]) -> float | None:
    """Return the time of the speed probe that all of these are scaled to, ms; None for several, or none."""
    bases = {measurement.reference_probe_ms for measurement in measurements if measurement.probe_ms}
    return bases.pop() if len(bases) == 1 else None
