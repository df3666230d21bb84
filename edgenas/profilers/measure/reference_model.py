"""The reference model: a small network that runs between the others and shows how the device's speed drifts."""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from edgenas.devices import Target
from edgenas.errors import MissingExtraError, ModelError
from edgenas.export import build_onnx, random_weights
from edgenas.profilers.measure.measurement import Measurement
from edgenas.profilers.measure.settings import MeasureSettings
from edgenas.profilers.measure.validity import MAX_DRIFT, MAX_INTERRUPTED, assess_validity
from edgenas.runtimes import Runtime, SourceModel
from edgenas.space import MobileNetV3

Turn = TypeVar("Turn")

# Processes of models between two of the reference.
INTERVAL = 10
# With fewer processes of the reference, its drift cannot be distinguished from its own noise.
MIN_REFERENCES = 10
# Short runs: the reference costs a tenth of this for each model. Ten runs after five differ as little from process to
# process as twenty after 30 ms (1.5% of 2 ms, 124 processes), because it is the processes that differ.
SETTINGS = MeasureSettings(
    processes=1, max_processes=1, max_runs=10, min_seconds=0, max_seconds=0.05, warmup_runs=5, warmup_seconds=0
)
# Of 1.4 MB; a few milliseconds on a core of a desktop machine.
_SPACE = {"width": 0.35, "resolutions": (224,), "classes": 10}
_GENES = "21819f4nnzhbd3n"
# Processes of the reference on each side of a moment that give the speed at that moment, and at the beginning of a
# batch that give the level.
_NEIGHBOURS, _FIRST = 5, 10
_MIN_NOISE = 0.01


@lru_cache(maxsize=2)
def try_build_reference_model(runtime: Runtime) -> bytes | None:
    """Return the reference model's file for a runtime; None where the runtime or this machine cannot make it."""
    space = MobileNetV3(**_SPACE)  # type: ignore[arg-type] # one dict for arguments of several types
    architecture = space.from_id(f"{space.short_hash}-{_GENES}")
    try:
        return runtime.make_float_file(SourceModel(build_onnx(architecture, random_weights(architecture))))
    except (MissingExtraError, ModelError):
        return None


def iter_turns_with_reference(turns: Sequence[Turn]) -> Iterator[Turn | None]:
    """Yield the turns of models with None, the reference's turn, before the first and after every tenth."""
    for place, turn in enumerate(turns):
        if place % INTERVAL == 0:
            yield None
        yield turn


class DriftMonitor:
    """The reference model's processes of a batch, and the drift of the device that they show.

    Processes that other programs interrupted in most of their runs do not count.

    Args:
        earlier: processes of the same series, measured before.
    """

    def __init__(self, earlier: Sequence[Measurement] = ()) -> None:
        self._references = sorted((one.taken_s, one.median_ms) for one in earlier if not _is_interrupted(one))
        self._new = 0  # since the last restart

    def __len__(self) -> int:
        return len(self._references)

    def add(self, reference: Measurement) -> None:
        """Add a process of the reference model."""
        if not _is_interrupted(reference):
            self._references.append((reference.taken_s, reference.median_ms))
            self._new += 1

    @property
    def baseline_ms(self) -> float | None:
        """The reference's latency that drift is relative to, ms; None before its first process."""
        return baseline_level_ms([median for _, median in self._references]) if self._references else None

    def forget_lasting_change(self) -> None:
        """Forget lasting changes, for something may have been done about them: only new processes show one."""
        self._new = 0

    def find_drift(self, moment_s: float) -> float | None:
        """Return how much slower than its baseline the device was at a moment, 0.03 for 3%; None if unknown."""
        return find_drift(moment_s, self._references)

    def find_lasting_change(self) -> float | None:
        """Return how much slower the device became for good; None unless its last ten processes all are a tenth off."""
        if self._new < MIN_REFERENCES:
            return None
        medians = [median for _, median in self._references]
        changes = [median / baseline_level_ms(medians) - 1 for median in medians[-MIN_REFERENCES:]]
        return statistics.median(changes) if all(abs(change) > MAX_DRIFT for change in changes) else None


def measurement_with_drift(measurement: Measurement, monitor: DriftMonitor, target: Target) -> Measurement:
    """Return a measurement with the drift at its time and the validity that follows; unchanged if that is unknown."""
    drift = monitor.find_drift(measurement.taken_s)
    if drift is None:
        return measurement
    after = {**measurement.conditions_after, "drift": drift}
    validity = assess_validity(
        measurement.conditions_before,
        after,
        placement=measurement.placement,
        providers=target.providers,
        power_mode=target.profile.power_mode,
    )
    return replace(measurement, conditions_after=after, validity=validity)


def _is_interrupted(reference: Measurement) -> bool:
    share = reference.conditions_after.get("interrupted_share")
    return share is not None and share > MAX_INTERRUPTED


def baseline_level_ms(medians_ms: Sequence[float]) -> float:
    """Return the median of the reference's medians, without those that are over a tenth off its first ten.

    A device that becomes much slower never makes that its baseline, however long it stays so.
    """
    first = statistics.median_low(medians_ms[:_FIRST])  # one of them, or else all might be far from it
    return statistics.median(median for median in medians_ms if abs(median / first - 1) <= MAX_DRIFT)


def find_drift(moment_s: float, references: Sequence[tuple[float, float]]) -> float | None:
    """Return how much slower than its baseline the device was at a moment, 0.03 for 3%.

    The median of the five processes of the reference before the moment and the five
    after it, against ``baseline_level_ms``: one process alone says nothing, and
    those before the moment alone notice a change too late. Zero where the difference
    is within the noise: two standard errors of such a median, and at least 1%.
    The noise is the deviation from one process of the reference to the next, which
    does not grow when the device changes its speed now and then.

    A disturbance of fewer than 50 processes is not seen.

    Args:
        moment_s: seconds since 1970; 0 for unknown.
        references: times in seconds since 1970 and medians in ms, in order of time.

    Returns:
        The drift; None where there are fewer than ten references or the moment is unknown.
    """
    if len(references) < MIN_REFERENCES or not moment_s:
        return None
    medians = [median for _, median in references]
    steps = [abs(after / before - 1) for before, after in itertools.pairwise(medians)]
    deviation = 1.4826 * statistics.median(steps) / math.sqrt(2)
    place = bisect.bisect([time for time, _ in references], moment_s)
    neighbours = medians[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS]
    noise = max(_MIN_NOISE, 2 * math.sqrt(math.pi / 2 / len(neighbours)) * deviation)
    drift = statistics.median(neighbours) / baseline_level_ms(medians) - 1
    return drift if abs(drift) > noise else 0.0
