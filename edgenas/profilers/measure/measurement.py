"""One model in one process: raw samples, where and how they were taken, and whether they can be trusted."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from edgenas.errors import MeasurementError
from edgenas.files import parse, read_document, write_document
from edgenas.on_device.speed_probe import EXPONENT
from edgenas.profilers.measure.statistics import median_interval, percentile
from edgenas.profilers.measure.validity import Validity
from edgenas.units import format_ms

KIND = "measurement"
VERSION = 4
# Facts that make a device another one; the kernel or the interpreter may be updated between two measurements.
_FINGERPRINT = ("synthetic", "model", "cpu", "arch", "cores", "usable_cores")


@dataclass(frozen=True)
class Measurement:
    """What running one model file in one process on one target gave.

    Data only; everything derived is computed from the samples.
    ``samples_ms``: single runs in the order taken, after warm-up, to the
    nanosecond; ``interrupted``: the places of those during which another
    program took the CPU. ``probe_ms``: what a fixed piece of work took around each of
    them, which tells how fast the CPU was; nothing where the model does not run on
    the CPU alone. ``round``: models of equal rounds were measured near
    each other in time. ``taken_s``: when it was there, in seconds since 1970, 0
    where nobody wrote it down. ``peak_bytes``: the most memory that the process held
    above one with an empty session, None where the device does not say
    (``memory_reason``). ``load_ms``: from file to session. ``device_s``: device
    time that it took in all; ``running_s``: that of warming up and timing.
    ``facts``: what identifies the device; ``versions``: of the runtime and the
    agent's Python. ``placement``: nodes by the provider that ran them, where
    there was more than one to choose from.
    ``energy_mj``: of one run, above idle, by the rail ``energy_rail``.
    ``synthetic``: the numbers are made up. ``unit`` is that of the samples.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    model_sha256: str
    target: Mapping[str, Any]
    samples_ms: tuple[float, ...]
    peak_bytes: int | None
    load_ms: float
    device_s: float
    facts: Mapping[str, Any]
    versions: Mapping[str, str]
    conditions_before: Mapping[str, Any]
    conditions_after: Mapping[str, Any]
    validity: Validity
    synthetic: bool
    settings: Mapping[str, Any]
    interrupted: tuple[int, ...] = ()
    probe_ms: tuple[float, ...] = ()
    round: int = 0
    taken_s: float = 0.0
    running_s: float = 0.0
    placement: Mapping[str, int] | None = None
    energy_mj: float | None = None
    energy_rail: str | None = None
    memory_reason: str | None = None
    unit: Literal["ms"] = "ms"

    def __post_init__(self) -> None:
        if len(self.samples_ms) < 2 or not all(0 < value < float("inf") for value in self.samples_ms):
            number = len(self.samples_ms)
            raise MeasurementError(
                f"a measurement must have at least 2 samples, all above 0 ms, but got {number}; measure again"
            )
        probe_times = self.probe_ms
        if len(probe_times) not in (0, len(self.samples_ms)) or not all(
            0 < each < float("inf") for each in probe_times
        ):
            raise MeasurementError("a measurement must have a pace above 0 ms for each sample, or none; measure again")

    @property
    def rejected(self) -> bool:
        """Whether it cannot be trusted."""
        return self.validity.status == "rejected"

    @cached_property
    def _counting(self) -> list[int]:
        """The places of the runs that count.

        Those that were interrupted are left out, unless fewer than five or a
        tenth would be left.
        """
        places = set(self.interrupted)
        calm = [place for place in range(len(self.samples_ms)) if place not in places]
        return calm if len(calm) >= max(5, len(self.samples_ms) / 10) else list(range(len(self.samples_ms)))

    @cached_property
    def runs_ms(self) -> tuple[float, ...]:
        """The runs that count, as long as they would take at the usual speed of the device.

        Each is divided by the square root of its pace over the usual one (see
        ``speed_probe.EXPONENT``); where that is not known, all by 1 + drift.
        """
        base = self.reference_probe_ms
        if self.probe_ms and base is not None:
            return tuple(self.samples_ms[place] * (base / self.probe_ms[place]) ** EXPONENT for place in self._counting)
        return tuple(self.samples_ms[place] / (1 + (self.drift or 0.0)) for place in self._counting)

    @cached_property
    def unscaled_ms(self) -> float:
        """The median of the runs that count, as long as they took."""
        return statistics.median(self.samples_ms[place] for place in self._counting)

    @property
    def slower(self) -> float:
        """How much slower than usual the device was by what the runs were scaled, 0.03 for 3%."""
        return self.unscaled_ms / self.median_ms - 1

    @cached_property
    def median_probe_ms(self) -> float | None:
        """The median pace, ms; None where nobody looked."""
        return statistics.median(self.probe_ms) if self.probe_ms else None

    @property
    def baseline_probe_ms(self) -> float | None:
        """The pace that the device remembered as usual when this was taken, ms; None where it remembered none."""
        return self._after("baseline_probe_ms")

    @property
    def reference_probe_ms(self) -> float | None:
        """The pace that runs are scaled to: what was chosen for all that it is compared with, or what was remembered.

        See ``edgenas.profilers.measure.baseline_speed``.
        """
        chosen = self._after("reference_probe_ms")
        return self.baseline_probe_ms if chosen is None else chosen

    def _after(self, key: str) -> float | None:
        found = self.conditions_after.get(key)
        return None if found is None else float(found)

    @property
    def drift(self) -> float | None:
        """How much slower than usual a reference model ran around that time, 0.03 for 3%; None where nobody watched."""
        return self._after("drift")

    @cached_property
    def _interval(self) -> tuple[float, float, float]:
        return median_interval(self.runs_ms)

    @property
    def median_ms(self) -> float:
        """The median latency of one run, of those that count, at the usual speed of the device."""
        return self._interval[0]

    @property
    def interval_ms(self) -> tuple[float, float]:
        """The ends of the 95% confidence interval of the median in this process; in others it is another one."""
        return self._interval[1:]

    @cached_property
    def p90_ms(self) -> float:
        """The latency that nine of ten runs that count stay below."""
        return percentile(self.runs_ms, 90)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain data; ``from_dict`` is the exact inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "measurement") -> Measurement:
        """The inverse of ``to_dict``; raises UsageError naming ``where`` for unknown keys and wrong values."""
        return parse(cls, dict(data), where)

    def save(self, path: Path) -> None:
        """Write it as an ``edgenas.measurement`` file."""
        write_document(path, KIND, VERSION, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Measurement:
        """Read what ``save`` wrote; raises FormatError when it is damaged or of another kind."""
        return cls.from_dict(read_document(path, KIND, VERSION, UPGRADES), str(path))

    def __str__(self) -> str:
        low, high = self.interval_ms
        interval = f"95% interval {format_ms(low)} to {format_ms(high)}"
        return f"{format_ms(self.median_ms)} ({interval}, {'synthetic, ' if self.synthetic else ''}{self.validity})"


def upgrade_from_3(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a measurement of version 3 with the keys and words of version 4."""
    keys = {"verdict": "validity", "pace_ms": "probe_ms"}
    condition_keys = {"usual_pace_ms": "baseline_probe_ms", "base_pace_ms": "reference_probe_ms"}
    statuses = {"trusted": "valid", "refused": "rejected"}
    upgraded = {keys.get(key, key): value for key, value in body.items()}
    for when in ("conditions_before", "conditions_after"):
        upgraded[when] = {condition_keys.get(key, key): value for key, value in upgraded[when].items()}
    status = upgraded["validity"]["status"]
    upgraded["validity"] = {**upgraded["validity"], "status": statuses.get(status, status)}
    return upgraded


def upgrade_baseline_from_3(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a baseline of version 3 with the measurements of version 4."""
    return {**body, "measurements": [upgrade_from_3(each) for each in body["measurements"]]}


UPGRADES = {3: upgrade_from_3}


def differences(then: Measurement, now: Measurement) -> list[tuple[str, str, Any, Any]]:
    """What makes two measurements incomparable: what differs, its name, and its two values.

    Of the device's facts, and of the versions that of the runtime.
    """
    runtime = str(now.target.get("runtime"))
    pairs = [("device", fact, then.facts.get(fact), now.facts.get(fact)) for fact in _FINGERPRINT]
    pairs.append(("runtime's version", runtime, then.versions.get(runtime), now.versions.get(runtime)))
    return [pair for pair in pairs if pair[2] != pair[3]]
