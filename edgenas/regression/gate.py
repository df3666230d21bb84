"""Checks: whether a model file is still as fast as a baseline says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgenas.devices import Target
from edgenas.errors import DeviceError
from edgenas.profilers import FEWEST, Measurement, MeasurementResult, MeasureSettings
from edgenas.profilers.measure.baseline_speed import at_common_baseline
from edgenas.profilers.measure.measurement import differences
from edgenas.profilers.measure.statistics import ratio_interval
from edgenas.regression.baseline import SETTINGS, Baseline, measure_processes
from edgenas.units import format_ms, parse_percent

Outcome = Literal["ok", "regressed", "incomparable", "not measurable"]
ROUNDS = 6


@dataclass(frozen=True)
class LatencyCheck:
    """What a check found.

    ``ratio``: median now by median then; ``interval``: the ends of its 95%
    confidence interval; both None where nothing was compared. ``reasons``: one
    line each. ``measurements``: those that were taken now, each in a process of
    its own; refused ones too.
    """

    outcome: Outcome
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    reasons: tuple[str, ...] = ()
    measurements: tuple[Measurement, ...] = ()

    @property
    def synthetic(self) -> bool:
        """Whether what was measured is made up, by a fake device."""
        return any(measurement.synthetic for measurement in self.measurements)

    def __str__(self) -> str:
        found = "" if self.ratio is None or self.interval is None else _change(self.ratio, self.interval)
        made_up = " (synthetic)" if self.synthetic else ""
        return f"{self.outcome}{made_up}: {'; '.join(self.reasons) or found}"


def check_latency(
    model: Path | str,
    baseline: Baseline,
    target: Target,
    latency: str = "+5%",
    settings: MeasureSettings | None = None,
) -> LatencyCheck:
    """Measure a model file and compare it with a baseline; ``latency`` is how much slower it may be.

    The file is usually another one than the baseline's: that is what a check is
    for. It is measured in six processes. When the whole 95% interval of the
    ratio lies within the tolerance, it is "ok" at once; otherwise it is measured
    in six more, and all twelve decide:

    - "regressed": the whole interval lies above the tolerance.
    - "ok": the ratio is within the tolerance. Where its interval reaches beyond,
      ``reasons`` says so.
    - "not measurable": the ratio is above the tolerance, but its interval is not.
      The noise hides the answer, and neither a pass nor a blame would be proven.
      Also where the device cannot be reached, or its conditions allow trust in
      fewer than six measurements.
    - "incomparable": the baseline is of another target, device or runtime
      version, or one of the two is synthetic; ``reasons`` names both sides.

    Raises UsageError for a malformed tolerance or a file that cannot be read,
    ModelError when the runtime refuses the file or it kills its process.
    """
    allowed = parse_percent(latency, "latency tolerance")
    now, then = target.to_dict(), baseline.target
    other = tuple(_difference("target", key, then.get(key), now[key]) for key in now if then.get(key) != now[key])
    if other:
        return LatencyCheck("incomparable", reasons=other)
    taken: tuple[Measurement, ...] = ()
    try:
        taken = measure_processes(model, target, settings or SETTINGS, ROUNDS)
        first = compare_with_baseline(baseline, taken, allowed)
        if (
            first.outcome == "incomparable"
            or (first.outcome == "ok" and not first.reasons)
            or all(each.rejected for each in taken)
        ):
            return first
        taken += measure_processes(model, target, settings or SETTINGS, ROUNDS)
    except DeviceError as error:
        return LatencyCheck("not measurable", reasons=(str(error),), measurements=taken)
    return compare_with_baseline(baseline, taken, allowed)


def compare_with_baseline(baseline: Baseline, taken: Sequence[Measurement], allowed: float) -> LatencyCheck:
    """The check of measurements against a baseline; ``allowed`` is a fraction, 0.05 for +5%. A pure function."""
    other = tuple(dict.fromkeys(line for each in taken for line in _device_differences(baseline, each)))
    if other:
        return LatencyCheck("incomparable", reasons=other, measurements=tuple(taken))
    together = at_common_baseline([*taken, *baseline.measurements])
    found, before = (
        MeasurementResult.of(together[: len(taken)], FEWEST),
        MeasurementResult(tuple(together[len(taken) :])),
    )
    if found.problems:
        return LatencyCheck("not measurable", reasons=found.problems, measurements=tuple(taken))
    now, then = ((each.median_ms, *each.interval_ms) for each in (found, before))
    ratio, interval = now[0] / then[0], ratio_interval(now, then)
    outcome, reasons = _decide(ratio, interval, allowed)
    medians = f"the median is {format_ms(now[0])}, it was {format_ms(then[0])}"
    return LatencyCheck(outcome, ratio, interval, tuple(f"{medians}: {reason}" for reason in reasons), tuple(taken))


def _decide(ratio: float, interval: tuple[float, float], allowed: float) -> tuple[Outcome, tuple[str, ...]]:
    low, high = interval
    limit, change = 1 + allowed, _change(ratio, interval)
    if low > limit:
        return "regressed", (f"{change}, over the {allowed:+.1%} that is allowed",)
    if high <= limit:
        return "ok", ()
    if ratio <= limit:
        return "ok", (f"{change}, within {allowed:+.1%} but not surely: measure on a quieter device to be sure",)
    return "not measurable", (
        f"{change}, too noisy to tell from {allowed:+.1%}: measure on a quieter device, or allow more",
    )


def _change(ratio: float, interval: tuple[float, float]) -> str:
    return f"{ratio - 1:+.1%}, at 95% from {interval[0] - 1:+.1%} to {interval[1] - 1:+.1%}"


def _device_differences(baseline: Baseline, now: Measurement) -> tuple[str, ...]:
    then = baseline.measurements[0]
    if then.synthetic != now.synthetic:
        words = {True: "synthetic", False: "real"}
        return (f"the baseline is {words[then.synthetic]}, this is {words[now.synthetic]}; record a new baseline here",)
    return tuple(_difference(*each) for each in differences(then, now))


def _difference(what: str, name: str, then: object, now: object) -> str:
    return f"another {what}: {name} was {then} in the baseline, is {now} now; record a new baseline here"
