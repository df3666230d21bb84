"""Which pace of its CPU is usual on a device, and measurements as they would be at that (see ``speed_probe``)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from edgenas.on_device.speed_probe import is_same_speed
from edgenas.profilers.measure.measurement import Measurement


def baseline_probe(measurements: Sequence[Measurement]) -> float | None:
    """The pace that is usual on the device of these, ms; None where nobody looked.

    What the device remembered when the latest of them was taken. Where it
    remembers nothing, or these were more than a tenth off that, as models feel it
    (it has become another device since, by another governor for example), their
    own median. Refused ones do not count where there are others.
    """
    trusted = [each for each in measurements if not each.rejected] or measurements
    own = [each.median_probe_ms for each in trusted if each.median_probe_ms is not None]
    if not own:
        return None
    middle = statistics.median(own)
    remembered = [(each.taken_s, each.baseline_probe_ms) for each in trusted if each.baseline_probe_ms is not None]
    usual = max(remembered)[1] if remembered else middle
    return usual if is_same_speed(middle, usual) else middle


def at_baseline(measurement: Measurement, base_ms: float | None) -> Measurement:
    """A measurement as it would be at this pace; as it is where that is None, or where it has no pace."""
    if base_ms is None or not measurement.probe_ms:
        return measurement
    return replace(measurement, conditions_after={**measurement.conditions_after, "reference_probe_ms": base_ms})


def at_common_baseline(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Measurements that are to be compared, as they would be at the pace that is usual on their device.

    It follows from what the device remembered and from their own probe_times alone,
    whatever they were compared with before.
    """
    usual = baseline_probe(measurements)
    return [at_baseline(each, usual) for each in measurements]


def common_baseline(measurements: Sequence[Measurement]) -> float | None:
    """The pace that all of these are at, ms; None where they are at several, or at none."""
    bases = {each.reference_probe_ms for each in measurements if each.probe_ms}
    return bases.pop() if len(bases) == 1 else None
