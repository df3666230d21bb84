"""The latency gate: a check that a model file is still as fast as its baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgenas.devices import Target
from edgenas.errors import DeviceError
from edgenas.files import format_value
from edgenas.profilers import MIN_PROCESSES, Measurement, MeasurementResult, MeasureSettings, ModelInputs
from edgenas.profilers.measure.measurement import incomparable_facts
from edgenas.profilers.measure.statistics import ratio_interval
from edgenas.regression.baseline import SETTINGS, Baseline, measure_processes
from edgenas.units import format_ms, parse_percent

Outcome = Literal["ok", "regressed", "incomparable", "not measurable"]
PROCESSES = 6


@dataclass(frozen=True)
class LatencyCheck:
    """The outcome of a latency check.

    Attributes:
        outcome: ``ok``, ``regressed``, ``incomparable`` or ``not measurable``; see ``check_latency``.
        ratio: median now by median then; None where nothing was compared.
        interval: the ends of the ratio's 95% confidence interval; None where nothing was compared.
        reasons: one line each.
        measurements: those taken now, each in a process of its own; rejected ones too.
    """

    outcome: Outcome
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    reasons: tuple[str, ...] = ()
    measurements: tuple[Measurement, ...] = ()

    @property
    def synthetic(self) -> bool:
        """True where the numbers are made up, by a fake device."""
        return any(measurement.synthetic for measurement in self.measurements)

    def __str__(self) -> str:
        change = "" if self.ratio is None or self.interval is None else _format_change(self.ratio, self.interval)
        made_up = " (synthetic)" if self.synthetic else ""
        return f"{self.outcome}{made_up}: {'; '.join(self.reasons) or change}"

    def __repr__(self) -> str:
        return f"LatencyCheck({self})"


def check_latency(
    model: Path | str,
    baseline: Baseline | Path | str,
    target: Target,
    latency: str = "+5%",
    settings: MeasureSettings | None = None,
    inputs: ModelInputs | None = None,
) -> LatencyCheck:
    """Measure a model file and compare its latency with a baseline.

    The file usually differs from the baseline's: a check compares versions of a model. It is measured in six
    processes. When the whole 95% interval of the ratio lies within the tolerance, it is "ok" at once; otherwise
    it is measured in six more, and all twelve decide:

    - "regressed": the whole interval lies above the tolerance.
    - "ok": the ratio is within the tolerance. Where its interval reaches beyond, ``reasons`` says so.
    - "not measurable": the ratio is above the tolerance, but its interval is not, so that neither a pass nor a
      regression is proven. Also where the device cannot be reached, or fewer than six processes are not rejected.
    - "incomparable": the baseline is of another target, device or runtime version, of other shapes where the file
      leaves them open, or one of the two is synthetic; ``reasons`` names both sides.

    Args:
        model: an ONNX or TFLite file.
        baseline: what ``record_baseline`` returned, or the file that it was saved to.
        target: the device and how the model is run there.
        latency: how much slower the file may be.
        settings: how long the model is run in each process.
        inputs: what the model is given, as for the baseline.

    Raises:
        UsageError: for a malformed tolerance, or a file that cannot be read.
        ModelError: when the runtime refuses the model file, or it kills its process.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from edgenas import Target, check_latency, load_profile, record_baseline
        >>> folder = Path(tempfile.mkdtemp())
        >>> fake = "{name: toy, connection: {kind: fake}, runtimes: {onnxruntime: {}}, default: {runtime: onnxruntime}}"
        >>> _ = (folder / "toy.yaml").write_text(fake)
        >>> target = Target(load_profile(folder / "toy.yaml"))
        >>> _ = (folder / "model.onnx").write_bytes(bytes(320_000))
        >>> record_baseline(folder / "model.onnx", target).save(folder / "baseline.json")
        >>> check_latency(folder / "model.onnx", folder / "baseline.json", target)
        LatencyCheck(ok (synthetic): +0.0%, at 95% from +0.0% to +0.0%)
    """
    allowed = parse_percent(latency, "latency tolerance")
    if not isinstance(baseline, Baseline):
        baseline = Baseline.load(baseline)
    now, then = target.to_dict(), baseline.target
    changed = [_format_difference("target", key, then.get(key), now[key]) for key in now if then.get(key) != now[key]]
    if changed:
        return LatencyCheck("incomparable", reasons=tuple(changed))
    return _measure_and_compare(model, baseline, target, allowed, settings or SETTINGS, inputs)


def _measure_and_compare(
    model: Path | str,
    baseline: Baseline,
    target: Target,
    allowed: float,
    settings: MeasureSettings,
    inputs: ModelInputs | None,
) -> LatencyCheck:
    taken: tuple[Measurement, ...] = ()
    try:
        taken = measure_processes(model, target, settings, PROCESSES, inputs)
        check = compare_with_baseline(baseline, taken, allowed)
        clear_pass = check.outcome == "ok" and not check.reasons
        if clear_pass or check.outcome == "incomparable" or all(measurement.is_rejected for measurement in taken):
            return check
        taken += measure_processes(model, target, settings, PROCESSES, inputs)
    except DeviceError as error:
        return LatencyCheck("not measurable", reasons=(str(error),), measurements=taken)
    return compare_with_baseline(baseline, taken, allowed)


def compare_with_baseline(baseline: Baseline, taken: Sequence[Measurement], allowed: float) -> LatencyCheck:
    """Return the check of measurements against a baseline; ``allowed`` is a fraction, 0.05 for +5%. Pure function."""
    taken = tuple(taken)
    changed = dict.fromkeys(
        reason for measurement in taken for reason in _format_device_differences(baseline, measurement)
    )
    if changed:
        return LatencyCheck("incomparable", reasons=tuple(changed), measurements=taken)
    result = MeasurementResult.from_measurements(taken, MIN_PROCESSES)
    if result.rejection_reasons:
        return LatencyCheck("not measurable", reasons=result.rejection_reasons, measurements=taken)
    now, then = ((one.median_ms, *one.interval_ms) for one in (result, baseline.result))
    ratio, interval = now[0] / then[0], ratio_interval(now, then)
    outcome, reason = _decide_outcome_and_reason(ratio, interval, allowed)
    medians = f"the median is {format_ms(now[0])}, it was {format_ms(then[0])}"
    return LatencyCheck(outcome, ratio, interval, (f"{medians}: {reason}",) if reason else (), taken)


def _decide_outcome_and_reason(ratio: float, interval: tuple[float, float], allowed: float) -> tuple[Outcome, str]:
    """Return the outcome of a ratio and its reason, empty for a clear pass."""
    low, high = interval
    limit, change = 1 + allowed, _format_change(ratio, interval)
    if low > limit:
        return "regressed", f"{change}, over the {allowed:+.1%} that is allowed"
    if high <= limit:
        return "ok", ""
    if ratio <= limit:
        return "ok", f"{change}, within {allowed:+.1%} but not surely: measure on a quieter device to be sure"
    remedy = "measure on a quieter device, or allow more"
    return "not measurable", f"{change}, too noisy to tell from {allowed:+.1%}: {remedy}"


def _format_change(ratio: float, interval: tuple[float, float]) -> str:
    return f"{ratio - 1:+.1%}, at 95% from {interval[0] - 1:+.1%} to {interval[1] - 1:+.1%}"


def _format_device_differences(baseline: Baseline, now: Measurement) -> list[str]:
    then = baseline.measurements[0]
    if then.synthetic != now.synthetic:
        words = {True: "synthetic", False: "real"}
        return [f"the baseline is {words[then.synthetic]}, this is {words[now.synthetic]}; record a new baseline here"]
    return [_format_difference(*difference) for difference in incomparable_facts(then, now)]


def _format_difference(what: str, name: str, then: object, now: object) -> str:
    return (
        f"another {what}: {name} was {format_value(then)} in the baseline, is {format_value(now)} now;"
        " record a new baseline here"
    )
