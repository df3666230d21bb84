"""The reference model: a small network that runs between the others, to see how fast the device is at the time."""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

from edgenas.errors import MissingExtraError
from edgenas.export import build_onnx, random_weights
from edgenas.profilers.measure.measurement import Measurement
from edgenas.profilers.measure.settings import MeasureSettings
from edgenas.profilers.measure.validity import MOST_DRIFT, MOST_INTERRUPTED
from edgenas.space import MobileNetV3

Turn = TypeVar("Turn")

# Processes of models between two of the reference.
EVERY = 10
# With fewer processes of the reference its drift could not be told from its own noise.
LEAST = 10
# Briefly: it costs a tenth of this for each model. Ten runs after five differ as little from process to process as
# twenty after 30 ms (1.5% of 2 ms, 124 processes), because it is the processes that differ.
SETTINGS = MeasureSettings(
    processes=1, max_processes=1, max_runs=10, min_seconds=0, max_seconds=0.05, warmup_runs=5, warmup_seconds=0
)
# Of 1.4 MB; a few milliseconds on a core that a desktop has.
_SPACE = {"width": 0.35, "resolutions": (224,), "classes": 10}
_GENES = "21819f4nnzhbd3n"
# So many processes of the reference on each side of a moment say how fast the device was then; so many at the
# beginning, how fast it is at all.
_NEAR, _FIRST = 5, 10
_LEAST_NOISE = 0.01


@lru_cache(maxsize=2)
def reference_model(ending: str) -> bytes | None:
    """The file of the reference model as ``.onnx`` or ``.tflite``; None where the library that writes it is missing."""
    space = MobileNetV3(**_SPACE)  # type: ignore[arg-type] # one dict for arguments of several types
    architecture = space.from_id(f"{space.short_hash}-{_GENES}")
    model = build_onnx(architecture, random_weights(architecture))
    if ending == ".onnx":
        return model
    try:
        from edgenas.export.tflite.writer import build_tflite

        return build_tflite(model)
    except MissingExtraError:
        return None


def with_reference(turns: Sequence[Turn]) -> Iterator[Turn | None]:
    """The turns of models with None, that of the reference, before the first and after every tenth."""
    for place, turn in enumerate(turns):
        if place % EVERY == 0:
            yield None
        yield turn


class DriftMonitor:
    """The reference's processes of a batch, ``earlier`` ones among them, and what they say about the device.

    Those of which other programs interrupted most runs say nothing, and do not count.
    """

    def __init__(self, earlier: Sequence[Measurement] = ()) -> None:
        self._taken = sorted((each.taken_s, each.unscaled_ms) for each in earlier if _undisturbed(each))
        self._fresh = 0

    def __len__(self) -> int:
        return len(self._taken)

    def add(self, reference: Measurement) -> None:
        """Take in a process of the reference."""
        if not _undisturbed(reference):
            return
        self._taken.append((reference.taken_s, reference.unscaled_ms))
        self._fresh += 1

    @property
    def usual_ms(self) -> float | None:
        """What the reference usually takes, ms: the level that drift is relative to; None before its first process."""
        return level([median for _, median in self._taken]) if self._taken else None

    def restart(self) -> None:
        """Whatever was done about the device since: only what comes now shows a change that lasts."""
        self._fresh = 0

    def drift(self, moment_s: float) -> float | None:
        """How much slower than usual the device was at a moment, 0.03 for 3%; None where nobody knows."""
        return drift(moment_s, self._taken)

    def changed(self) -> float | None:
        """By how much the device changed for good: where its last ten processes all were more than a tenth off."""
        if self._fresh < LEAST:
            return None
        medians = [median for _, median in self._taken]
        off = [median / level(medians) - 1 for median in medians[-LEAST:]]
        return statistics.median(off) if all(abs(each) > MOST_DRIFT for each in off) else None


def _undisturbed(reference: Measurement) -> bool:
    share = reference.conditions_after.get("interrupted_share")
    return share is None or share <= MOST_INTERRUPTED


def level(medians_ms: Sequence[float]) -> float:
    """What is usual in a batch: the median of the reference's medians, without those over a tenth off its first ten.

    A device that becomes much slower never makes that the usual, however long it stays so.
    """
    first = statistics.median_low(medians_ms[:_FIRST])  # one of them, or else all might be far from it
    return statistics.median(median for median in medians_ms if abs(median / first - 1) <= MOST_DRIFT)


def drift(moment_s: float, references: Sequence[tuple[float, float]]) -> float | None:
    """How much slower than usual the device was at a moment, 0.03 for 3%, by its reference's times and medians.

    The median of the five processes of the reference before and the five after
    it, against the ``level`` of all: a process in between says nothing alone,
    and those before it alone are late to notice. Zero where the difference is
    within the noise: two standard errors of a median of these, and at least 1%.
    The noise is that from one process of the reference to the next, which a
    device that changes its speed now and then does not enlarge. None where there
    are fewer than ten, and for a moment that nobody recorded.

    Simulated with 40 equal models in six rounds on a device that becomes 8%
    slower: half-way, corrected medians differ half as much as raw ones; after a
    quarter or three quarters as much, for rounds alone balance that. Of single
    processes of 240 models, 1.4% instead of 4%. A disturbance of fewer than 50
    processes is not seen.
    """
    if len(references) < LEAST or not moment_s:
        return None
    medians = [median for _, median in references]
    steps = [abs(after / before - 1) for before, after in itertools.pairwise(medians)]
    deviation = 1.4826 * statistics.median(steps) / math.sqrt(2)
    place = bisect.bisect([time for time, _ in references], moment_s)
    near = medians[max(0, place - _NEAR) : place + _NEAR]
    noise = max(_LEAST_NOISE, 2 * math.sqrt(math.pi / 2 / len(near)) * deviation)
    found = statistics.median(near) / level(medians) - 1
    return found if abs(found) > noise else 0.0
