"""The state of a device while a latency table was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from edgenas.files import Count, Number, ShortText
from edgenas.profilers.measure.measurement import Measurement
from edgenas.profilers.measure.validity import THROTTLED_FLAGS


@dataclass(frozen=True)
class ConditionsSummary:
    """The state of the device while a table was measured; None for values that the device does not report.

    ``frequency_khz`` and ``temperature_c`` are the lowest and the highest value read, ``frequency_limit_khz`` is the
    lowest limit.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    governor: ShortText | None = None
    frequency_khz: tuple[Count, Count] | None = None
    frequency_limit_khz: Count | None = None
    temperature_c: tuple[Number, Number] | None = None
    throttled: bool | None = None
    power_mode: ShortText | None = None

    @classmethod
    def from_measurements(cls, measurements: Sequence[Measurement]) -> ConditionsSummary:
        """Return the summary of the conditions before and after each measurement."""
        states = [state for one in measurements for state in (one.conditions_before, one.conditions_after)]

        def collect_values(*names: str) -> list[Any]:
            return [state[name] for state in states for name in names if state.get(name) is not None]

        limits = collect_values("frequency_limit_khz")
        return cls(
            governor=", ".join(sorted(set(collect_values("governor")))) or None,
            frequency_khz=_lowest_and_highest(collect_values("frequency_khz", "lowest_frequency_khz")),
            frequency_limit_khz=min(limits) if limits else None,
            temperature_c=_lowest_and_highest(collect_values("temperature_c")),
            throttled=_throttled_or_none(collect_values("throttle_count"), collect_values("throttled_flags")),
            power_mode=", ".join(sorted(set(collect_values("power_mode")))) or None,
        )

    def __str__(self) -> str:
        megahertz = [khz / 1e3 for khz in self.frequency_khz or ()]
        texts = [
            "" if self.governor is None else f"governor {self.governor}",
            "{:.0f} to {:.0f} MHz".format(*megahertz) if megahertz else "",
            "" if self.frequency_limit_khz is None else f"limit {self.frequency_limit_khz / 1e3:.0f} MHz",
            "{:.0f} to {:.0f} °C".format(*self.temperature_c) if self.temperature_c else "",
            {True: "THROTTLED", False: "not throttled", None: ""}[self.throttled],
            "" if self.power_mode is None else f"power mode {self.power_mode}",
        ]
        return ", ".join(text for text in texts if text) or "the device does not say"


def _lowest_and_highest(values: Sequence[Any]) -> tuple[Any, Any] | None:
    return (min(values), max(values)) if values else None


def _throttled_or_none(counts: Sequence[int], flags: Sequence[int]) -> bool | None:
    if not counts and not flags:
        return None
    return (bool(counts) and counts[-1] > counts[0]) or any(each & THROTTLED_FLAGS for each in flags)
