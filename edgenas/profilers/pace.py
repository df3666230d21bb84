"""Which pace of its CPU is usual on a device, and measurements as they would be at that (see ``agent_pace``)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from edgenas.profilers.measurement import Measurement
from edgenas.profilers.trust import MOST_DRIFT


def usual_pace(measurements: Sequence[Measurement]) -> float | None:
    """The pace that is usual on the device of these, ms; None where nobody looked.

    What the device remembered when the latest of them was taken. Where it
    remembers nothing, or these were more than a tenth off that (it has become
    another device since, by another governor for example), their own median.
    Refused ones do not count where there are others.
    """
    trusted = [each for each in measurements if not each.refused] or measurements
    own = [each.own_pace_ms for each in trusted if each.own_pace_ms is not None]
    if not own:
        return None
    middle = statistics.median(own)
    remembered = [(each.taken_s, each.usual_pace_ms) for each in trusted if each.usual_pace_ms is not None]
    usual = max(remembered)[1] if remembered else middle
    return usual if abs(middle / usual - 1) <= MOST_DRIFT else middle


def at_pace(measurement: Measurement, usual_ms: float | None) -> Measurement:
    """A measurement with this as the pace that is usual on its device."""
    if usual_ms is None or usual_ms == measurement.usual_pace_ms:
        return measurement
    return replace(measurement, conditions_after={**measurement.conditions_after, "usual_pace_ms": usual_ms})


def at_one_pace(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Measurements that are to be compared, all as they would be at the pace that is usual on their device."""
    known = {each.usual_pace_ms for each in measurements}
    usual = usual_pace(measurements) if len(known) > 1 or None in known else None
    return [at_pace(each, usual) for each in measurements]
