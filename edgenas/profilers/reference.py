"""The reference model: a small network that runs between the others, to see how fast the device is at the time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

from edgenas.errors import MissingExtraError
from edgenas.export import build_onnx, random_weights
from edgenas.profilers.settings import MeasureSettings
from edgenas.space import MobileNetV3

Turn = TypeVar("Turn")

# Processes of models between two of the reference.
EVERY = 10
# Fewer processes than this are over before the reference could tell drift from its own noise.
LEAST = 16
# Briefly: it costs a tenth of this for each model.
SETTINGS = MeasureSettings(
    processes=1, max_processes=1, max_runs=20, min_seconds=0, max_seconds=0.05, warmup_seconds=0.03
)
# Of 1.4 MB; a few milliseconds on a core that a desktop has.
_SPACE = {"width": 0.35, "resolutions": (224,), "classes": 10}
_GENES = "21819f4nnzhbd3n"
# The reference's latest processes say how fast the device is now, more of them what is usual: one that stays slower
# is as usual after a while.
_NOW, _USUAL = 5, 50
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
        from edgenas.export.tflite import build_tflite

        return build_tflite(model)
    except MissingExtraError:
        return None


def with_reference(turns: Sequence[Turn]) -> Iterator[Turn | None]:
    """The turns of models with None, that of the reference, before the first and after every tenth."""
    for place, turn in enumerate(turns):
        if place % EVERY == 0:
            yield None
        yield turn


def drift(medians_ms: Sequence[float]) -> float | None:
    """How much slower the reference's last 5 processes were than its last 50, by their medians, 0.03 for 3%.

    Zero where the difference is within the noise: two standard errors of a
    median of 5, from the median absolute deviation, and at least 1%. Single
    processes of the reference say nothing: dividing by them made the spread of
    other models larger. None where there are fewer than 5.
    """
    if len(medians_ms) < _NOW:
        return None
    latest = medians_ms[-_USUAL:]
    usual = statistics.median(latest)
    deviation = 1.4826 * statistics.median(abs(median / usual - 1) for median in latest)
    noise = max(_LEAST_NOISE, 2 * math.sqrt(math.pi / 2 / _NOW) * deviation)
    found = statistics.median(latest[-_NOW:]) / usual - 1
    return found if abs(found) > noise else 0.0
