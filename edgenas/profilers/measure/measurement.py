"""One model in one process: raw samples, where and how they were taken, and their validity."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from edgenas.errors import MeasurementError
from edgenas.files import Amount, Count, Number, Schema, ShortText, parse_dataclass
from edgenas.profilers.measure.statistics import median_with_interval, percentile
from edgenas.profilers.measure.validity import Validity
from edgenas.units import format_ms, format_ms_interval

# Facts that identify a device; its kernel or interpreter may be updated between two measurements.
_IDENTIFYING_FACTS = ("synthetic", "model", "cpu", "arch", "cores", "usable_cores")
MAX_PROBE_DEVIATION = 0.1
_NUMERIC_CONDITIONS = ("_khz", "_c", "_count", "_flags", "_share", "_deviation")  # ends of their names
_TEXT_CONDITIONS = ("governor", "power_mode")


@dataclass(frozen=True)
class Measurement:
    """Samples of one model file in one process on one target. Data only; statistics are computed from the samples.

    Attributes:
        model_sha256: SHA-256 of the model file.
        target: device, runtime, providers, precision and threads.
        samples_ms: single runs in the order taken, after warm-up, to the nanosecond.
        peak_bytes: the most memory the process held above one with an empty session;
            None where the device does not say (``memory_reason``).
        load_ms: time from file to session.
        device_s: device time in all.
        facts: facts that identify the device.
        versions: versions of the runtime and of the agent's Python.
        conditions_before: state of the device before the runs.
        conditions_after: state of the device after the runs.
        validity: valid, unverified or rejected, with reasons.
        synthetic: true where the numbers are made up, by a fake device.
        settings: the MeasureSettings of the process.
        interrupted: indices of the samples during which another program took the CPU.
        probe_ms: time of a fixed piece of work around each sample (the speed probe);
            empty where the model does not run on the CPU alone.
        round: models with equal rounds were measured near each other in time.
        taken_s: end of the measurement in seconds since 1970; 0 for unknown.
        running_s: device time of warm-up and timing.
        placement: number of nodes by the provider that ran them, where there was a choice.
        filled_shapes: shapes of the inputs whose file leaves dimensions open, as they were run.
        energy_mj: energy of one run above idle, measured at ``energy_rail``.
        unit: unit of the samples.

    Raises:
        MeasurementError: for fewer than two samples, or times that are not above 0.

    Example:
        >>> from edgenas import Measurement
        >>> from edgenas.profilers.measure.validity import Validity
        >>> Measurement(
        ...     model_sha256="0" * 64, target={"device": "toy"}, samples_ms=(1.0, 1.1, 1.2, 1.1, 1.0), peak_bytes=None,
        ...     load_ms=3.0, device_s=0.1, facts={}, versions={}, conditions_before={}, conditions_after={},
        ...     validity=Validity("valid"), synthetic=True, settings={},
        ... )
        Measurement(1.10 ms, 95% interval 0.992 to 1.21 ms, 5 runs, synthetic, valid)
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    model_sha256: ShortText
    target: Mapping[str, Any]
    samples_ms: tuple[float, ...]
    peak_bytes: Count | None
    load_ms: Amount
    device_s: Amount
    facts: Mapping[str, Any]
    versions: Mapping[ShortText, ShortText]
    conditions_before: Mapping[str, Any]
    conditions_after: Mapping[str, Any]
    validity: Validity
    synthetic: bool
    settings: Mapping[str, Any]
    interrupted: tuple[Count, ...] = ()
    probe_ms: tuple[float, ...] = ()
    round: Count = 0
    taken_s: Amount = 0.0
    running_s: Amount = 0.0
    placement: Mapping[ShortText, Count] | None = None
    filled_shapes: Mapping[ShortText, tuple[Count, ...]] = field(default_factory=dict)
    energy_mj: Number | None = None
    energy_rail: ShortText | None = None
    memory_reason: ShortText | None = None
    unit: Literal["ms"] = "ms"

    def __post_init__(self) -> None:
        number = len(self.samples_ms)
        if number < 2 or not all(0 < sample < float("inf") for sample in self.samples_ms):
            raise MeasurementError(
                f"a measurement must have at least 2 samples, all above 0 ms, but got {number}; measure again"
            )
        if len(self.probe_ms) not in (0, number) or not all(0 < time < float("inf") for time in self.probe_ms):
            raise MeasurementError(
                "a measurement must have a speed probe time above 0 ms for each sample, or none; measure again"
            )
        for name, value in (*self.conditions_before.items(), *self.conditions_after.items()):
            if value is not None and name.endswith(_NUMERIC_CONDITIONS) and not _is_number(value):
                raise MeasurementError(f"condition {name} must be a number, but got {value!r}; measure again")
            if value is not None and name in _TEXT_CONDITIONS and not isinstance(value, str):
                raise MeasurementError(f"condition {name} must be text, but got {value!r}; measure again")

    @property
    def is_rejected(self) -> bool:
        """True where the validity is rejected."""
        return self.validity.status == "rejected"

    @cached_property
    def runs_ms(self) -> tuple[float, ...]:
        """The samples that count, as they were timed: those that no other program interrupted.

        All of them where fewer than five, or a tenth, would be left.
        """
        interrupted = set(self.interrupted)
        calm = tuple(ms for index, ms in enumerate(self.samples_ms) if index not in interrupted)
        return calm if len(calm) >= max(5, len(self.samples_ms) / 10) else self.samples_ms

    @cached_property
    def median_probe_ms(self) -> float | None:
        """The median time of the speed probe, ms; None where it was not run."""
        return statistics.median(self.probe_ms) if self.probe_ms else None

    @property
    def is_disturbed(self) -> bool:
        """True where the speed probe was more than a tenth off the median of the batch's processes; it counts still."""
        deviation: float | None = self.conditions_after.get("probe_deviation")
        return deviation is not None and abs(deviation) > MAX_PROBE_DEVIATION

    @cached_property
    def _median_with_interval(self) -> tuple[float, float, float]:
        return median_with_interval(self.runs_ms)

    @property
    def median_ms(self) -> float:
        """The median latency of one run."""
        return self._median_with_interval[0]

    @property
    def interval_ms(self) -> tuple[float, float]:
        """The ends of the 95% confidence interval of the median within this process; processes differ by more."""
        return self._median_with_interval[1:]

    @cached_property
    def p90_ms(self) -> float:
        """The 90th percentile of the runs."""
        return percentile(self.runs_ms, 90)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain data; ``from_dict`` is the exact inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "measurement") -> Measurement:
        """Return the measurement of plain data; raise UsageError naming ``where`` for unknown keys and wrong values."""
        return parse_dataclass(cls, dict(data), where)

    def save(self, path: Path | str) -> None:
        """Write an ``edgenas.measurement`` file."""
        MEASUREMENT_SCHEMA.write(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: Path | str) -> Measurement:
        """Read what ``save`` wrote; raise FormatError when the file is damaged or of another kind."""
        return cls.from_dict(MEASUREMENT_SCHEMA.read(Path(path)), str(path))

    def __str__(self) -> str:
        interval = f"95% interval {format_ms_interval(self.interval_ms)}"
        return f"{format_ms(self.median_ms)} ({interval}, {'synthetic, ' if self.synthetic else ''}{self.validity})"

    def __repr__(self) -> str:
        made_up = "synthetic, " if self.synthetic else ""
        median = format_median_with_interval(self.median_ms, self.interval_ms)
        return f"Measurement({median}, {len(self.samples_ms)} runs, {made_up}{self.validity.status})"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def format_median_with_interval(median_ms: float, interval_ms: tuple[float, float] | None) -> str:
    """Return a median with its interval as text: ``0.321 ms, 95% interval 0.318 to 0.325 ms``."""
    if interval_ms is None:
        return format_ms(median_ms)
    low, high = interval_ms
    return f"{format_ms(median_ms)}, 95% interval {format_ms(low).removesuffix(' ms')} to {format_ms(high)}"


def format_shape(shape: Sequence[int]) -> str:
    """Return the shape of an input as text: ``1x3x224x224``, ``scalar``."""
    return "x".join(map(str, shape)) or "scalar"


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


def upgrade_from_4(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a measurement of version 4, which said nothing of the shapes of inputs, in version 5."""
    return {**body, "filled_shapes": {}}


def upgrade_baseline_from_3(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a baseline of version 3 with the measurements of version 4."""
    return {**body, "measurements": [upgrade_from_3(each) for each in body["measurements"]]}


MEASUREMENT_SCHEMA = Schema("measurement", 5, {3: upgrade_from_3, 4: upgrade_from_4})


def incomparable_facts(then: Measurement, now: Measurement) -> list[tuple[str, str, Any, Any]]:
    """Return what makes two measurements incomparable: facts of the device, the runtime's version, shapes of inputs.

    Returns:
        For each difference: ``device``, ``runtime's version`` or ``shape``, its name, its value then and now.
    """
    runtime = str(now.target.get("runtime"))
    pairs = [("device", fact, then.facts.get(fact), now.facts.get(fact)) for fact in _IDENTIFYING_FACTS]
    pairs.append(("runtime's version", runtime, then.versions.get(runtime), now.versions.get(runtime)))
    # Measurements before version 5 name no shapes, and another version of a model may have other inputs.
    shared = sorted(then.filled_shapes.keys() & now.filled_shapes.keys())
    pairs += [
        ("shape", name, format_shape(then.filled_shapes[name]), format_shape(now.filled_shapes[name]))
        for name in shared
    ]
    return [pair for pair in pairs if pair[2] != pair[3]]
