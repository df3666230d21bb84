"""Which pace of its CPU is usual on a device, and measurements as they would be at that (see ``speed_probe``)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from edgenas.on_device.speed_probe import is_usual
from edgenas.profilers.measure.measurement import Measurement


def usual_pace(measurements: Sequence[Measurement]) -> float | None:
    """The pace that is usual on the device of these, ms; None where nobody looked.

    What the device remembered when the latest of them was taken. Where it
    remembers nothing, or these were more than a tenth off that, as models feel it
    (it has become another device since, by another governor for example), their
    own median. Refused ones do not count where there are others.
    """
    trusted = [each for each in measurements if not each.refused] or measurements
    own = [each.own_pace_ms for each in trusted if each.own_pace_ms is not None]
    if not own:
        return None
    middle = statistics.median(own)
    remembered = [(each.taken_s, each.usual_pace_ms) for each in trusted if each.usual_pace_ms is not None]
    usual = max(remembered)[1] if remembered else middle
    return usual if is_usual(middle, usual) else middle


def at_pace(measurement: Measurement, base_ms: float | None) -> Measurement:
    """A measurement as it would be at this pace; as it is where that is None, or where it has no pace."""
    if base_ms is None or not measurement.pace_ms:
        return measurement
    return replace(measurement, conditions_after={**measurement.conditions_after, "base_pace_ms": base_ms})


def at_one_pace(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Measurements that are to be compared, as they would be at the pace that is usual on their device.

    It follows from what the device remembered and from their own paces alone,
    whatever they were compared with before.
    """
    usual = usual_pace(measurements)
    return [at_pace(each, usual) for each in measurements]


def common_pace(measurements: Sequence[Measurement]) -> float | None:
    """The pace that all of these are at, ms; None where they are at several, or at none."""
    bases = {each.base_pace_ms for each in measurements if each.pace_ms}
    return bases.pop() if len(bases) == 1 else None
