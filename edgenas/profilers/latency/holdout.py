"""The holdout report of a latency table: its errors on held-out subnets, and the conditions of measuring."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from edgenas.costs import Genes, Vector
from edgenas.profilers.latency.conditions import ConditionsSummary
from edgenas.profilers.latency.drift import Moments
from edgenas.profilers.latency.gaussian_process import PartProcess
from edgenas.profilers.latency.memory import memory_mape
from edgenas.profilers.measure.cpu_speed import median_probe_ms
from edgenas.profilers.measure.measurement import Measurement
from edgenas.profilers.measure.reference_model import DriftMonitor
from edgenas.space import SearchSpace
from edgenas.units import format_ms

TWO_SIDED_95 = 1.959964
# New names of keys in version 7 of tables, which hold a report.
KEYS_RENAMED_IN_TABLE_7 = {
    "certificate": "holdout",
    "levelled": "drift_corrected",
    "pace_ms": "probe_ms",
    "verdicts": "validity_counts",
    "trusted": "valid",
    "refused": "rejected",
}


@dataclass(frozen=True)
class HoldoutReport:
    """Errors of a table's predictions for random held-out subnets; errors are fractions.

    Attributes:
        mape: The mean absolute error.
        p95: The 95% quantile of the absolute errors.
        within_5_percent: The share of absolute errors of at most 0.05.
        within_10_percent: The share of absolute errors of at most 0.1.
        within_interval: The share of held-out measurements within the 95% interval of prediction, noise and drift
            together.
        noise: The standard deviation of one measurement without drift, as the fit estimates it.
        drift: The standard deviation by drift at one moment, of the median held-out subnet.
        bias: The mean error.
        kendall_tau: Kendall's tau, pooled over all resolutions; sizes alone make it high.
        kendall_tau_at: Kendall's tau by resolution in pixels.
        memory_mape: The mean absolute error of peak memory; None if the device does not report it, as with an
            accelerator.
        errors: Predicted / measured - 1 of each held-out subnet, in the order of measuring.
        drift_corrected: The same without the drift that the fitted subnets measured around it show.
        fitted: The number of fitted subnets.
        held_out: The number of held-out subnets.
        device_s: The device time of all these subnets and of the reference model, seconds.
        reference_ms: The usual latency of the reference model; None if it was not run.
        probe_ms: The median time of the speed probe on the device's CPU; None for models that do not run on the CPU
            alone.
        conditions: The state of the device.
        validity_counts: The number of measurements by validity.
        fastest: The id of the fastest of all measured subnets.
        fastest_ms: Its median latency.
        slowest: The id of the slowest of all measured subnets.
        slowest_ms: Its median latency.
        synthetic: True if a measurement is made up by a fake device.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    mape: float
    p95: float
    within_5_percent: float
    within_10_percent: float
    within_interval: float
    noise: float
    drift: float
    bias: float
    kendall_tau: float
    kendall_tau_at: dict[str, float]
    memory_mape: float | None
    errors: tuple[float, ...]
    drift_corrected: tuple[float, ...]
    fitted: int
    held_out: int
    device_s: float
    reference_ms: float | None
    probe_ms: float | None
    conditions: ConditionsSummary
    validity_counts: dict[str, int]
    fastest: str
    fastest_ms: float
    slowest: str
    slowest_ms: float
    synthetic: bool

    def __repr__(self) -> str:
        return f"HoldoutReport({self.headline})"

    @property
    def mape_upper_bound(self) -> float:
        """The upper end of the 95% interval of the MAPE over all random subnets."""
        return mape_upper_bound(np.array(self.errors))

    @property
    def headline(self) -> str:
        """The most important figures on one line."""
        return (
            f"MAPE {self.mape:.1%}, within 10% {self.within_10_percent:.0%},"
            f" Kendall tau {_format_taus(self.kendall_tau_at)} on {self.held_out} held-out subnets;"
            f" {self.fitted} fitted, {_format_duration(self.device_s)} of device time"
            + (" SYNTHETIC" if self.synthetic else "")
        )

    def __str__(self) -> str:
        rows = self._format_rows()
        names, values = (max(len(row[column]) for row in rows) for column in (0, 1))
        return "\n".join(f"{name:<{names}}  {value:>{values}}  {note}".rstrip() for name, value, note in rows)

    def _format_rows(self) -> list[tuple[str, str, str]]:
        """Return name, value and remark of each line of a listing."""
        bound = self.mape_upper_bound
        bound_text = "" if math.isinf(bound) else f", at most {bound:.1%} at 95% confidence"
        validity = ", ".join(f"{count} {status}" for status, count in self.validity_counts.items())
        taus = _format_taus(self.kendall_tau_at, "{} px: {:.2f}")
        drift_corrected = np.abs(self.drift_corrected).mean()
        if self.memory_mape is None:
            memory = "-", "the device does not say; activations and weights are counted once each"
        else:
            memory = f"{self.memory_mape:.1%}", "of the peak above an empty session"
        return [
            *([("SYNTHETIC", "", "these numbers are made up")] if self.synthetic else []),
            ("MAPE", f"{self.mape:.1%}", f"of {self.held_out} random held-out subnets{bound_text}"),
            ("drift-corrected MAPE", f"{drift_corrected:.1%}", "without drift of the device's speed"),
            ("p95 of errors", f"{self.p95:.1%}", ""),
            ("within 5%", f"{self.within_5_percent:.0%}", ""),
            ("within 10%", f"{self.within_10_percent:.0%}", ""),
            ("bias", f"{self.bias:+.1%}", "above zero: predictions are too high"),
            ("Kendall tau", f"{self.kendall_tau:.2f}", f"pooled; {taus}" if taus else "pooled"),
            ("95% interval coverage", f"{self.within_interval:.0%}", "of prediction, noise and drift together"),
            ("noise", f"{self.noise:.1%}", "standard deviation of one measurement"),
            ("drift", f"{self.drift:.1%}", "standard deviation of the device's speed"),
            ("memory MAPE", *memory),
            ("fitted", str(self.fitted), f"subnets, {format_ms(self.fastest_ms)} to {format_ms(self.slowest_ms)}"),
            ("device time", _format_duration(self.device_s), ""),
            ("validity", "", validity),
            ("conditions", "", str(self.conditions)),
        ]


def _format_taus(taus: dict[str, float], form: str = "{}: {:.2f}") -> str:
    return ", ".join(form.format(resolution, tau) for resolution, tau in taus.items())


def _format_duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def mape_upper_bound(errors: Vector) -> float:
    """Return the upper end of the 95% interval (Student's t) of the mean absolute error; infinite for fewer than 2."""
    if len(errors) < 2:
        return math.inf
    from scipy.special import stdtrit

    absolute = np.abs(errors)
    quantile = float(stdtrit(len(absolute) - 1, 0.975))
    return float(absolute.mean() + quantile * absolute.std(ddof=1) / math.sqrt(len(absolute)))


def latencies_and_peaks(measurements: Sequence[Measurement]) -> tuple[Vector, Vector]:
    """Return median latencies (N,), ms, and peak memory (N,), bytes, 0 if the device does not report it."""
    peaks = [measurement.peak_bytes or 0 for measurement in measurements]
    return np.array([each.median_ms for each in measurements]), np.array(peaks, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted latencies with standard deviations, ms, and peak memory, bytes, of subnets, each (N,)."""

    latency_ms: Vector
    latency_std_ms: Vector
    peak_bytes: Vector


def standardize_residuals(
    process: PartProcess, predicted_ms: Vector, std_ms: Vector, measured_ms: Vector, *, with_drift: bool
) -> Vector:
    """Return residuals (N,) of measured medians in half widths of the 95% interval.

    The interval is that of the prediction and one measurement's noise, and of drift at its moment ``with_drift``.
    """
    drift = process.drift_std(predicted_ms) if with_drift else 0.0
    combined = np.hypot(std_ms / predicted_ms, np.hypot(process.noise_std, drift))
    return np.asarray(np.abs(predicted_ms / measured_ms - 1) / (TWO_SIDED_95 * combined))


def evaluate_holdout(
    space: SearchSpace,
    process: PartProcess,
    predictions: Predictions,
    genes: Genes,
    measurements: Sequence[Measurement],
    held_out: npt.NDArray[np.bool_],
    reference: Sequence[Measurement] = (),
) -> HoldoutReport:
    """Compare predictions with the measurements of held-out subnets.

    Args:
        space: The search space.
        process: The fit to the other subnets.
        predictions: Predictions for the H held-out subnets.
        genes: All measured subnets (N, G).
        measurements: Their measurements, in the order of measuring.
        held_out: The mask (N,) of the held-out subnets, at least one.
        reference: The measurements of the reference model between them.
    """
    latency, memory = latencies_and_peaks(measurements)
    predicted, measured, peaks = predictions.latency_ms, latency[held_out], memory[held_out]
    errors = predicted / measured - 1
    absolute, pairs = np.abs(errors), np.column_stack([predicted, measured])
    residuals = standardize_residuals(process, predicted, predictions.latency_std_ms, measured, with_drift=True)
    drift = process.estimate_drift(Moments.of(measurements)[held_out], predicted)
    fastest, slowest = int(latency.argmin()), int(latency.argmax())
    ids = [architecture.id for architecture in space.decode(genes[[fastest, slowest]])]
    return HoldoutReport(
        mape=float(absolute.mean()),
        p95=float(np.quantile(absolute, 0.95)),
        within_5_percent=float((absolute <= 0.05).mean()),
        within_10_percent=float((absolute <= 0.1).mean()),
        within_interval=float((residuals <= 1).mean()),
        noise=process.noise_std,
        drift=float(np.median(process.drift_std(predicted))),
        bias=float(errors.mean()),
        kendall_tau=kendall_tau_or_none(pairs) or 0.0,
        kendall_tau_at=_kendall_tau_by_resolution(space.resolutions, genes[held_out, 0], pairs),
        memory_mape=memory_mape(predictions.peak_bytes, peaks) if peaks.any() else None,
        errors=tuple(errors.tolist()),
        drift_corrected=tuple(((1 + errors) * np.exp(drift) - 1).tolist()),
        fitted=int((~held_out).sum()),
        held_out=int(held_out.sum()),
        device_s=float(sum(measurement.device_s for measurement in (*measurements, *reference))),
        reference_ms=DriftMonitor(reference).baseline_ms,
        probe_ms=median_probe_ms(measurements),
        conditions=ConditionsSummary.from_measurements(measurements),
        validity_counts=count_validity(measurements),
        fastest=ids[0],
        fastest_ms=float(latency[fastest]),
        slowest=ids[1],
        slowest_ms=float(latency[slowest]),
        synthetic=any(measurement.synthetic for measurement in measurements),
    )


def count_validity(measurements: Sequence[Measurement]) -> dict[str, int]:
    """Return the number of measurements of each validity, sorted by it."""
    return dict(sorted(Counter(measurement.validity.status for measurement in measurements).items()))


def kendall_tau_or_none(pairs: Vector) -> float | None:
    """Return Kendall's tau of predicted and measured values (N, 2); None if it is undefined."""
    from scipy.stats import kendalltau

    if len(pairs) < 2:
        return None
    tau = float(kendalltau(*pairs.T).statistic)
    return None if math.isnan(tau) else tau


def _kendall_tau_by_resolution(
    resolutions: Sequence[int], indices: npt.NDArray[np.int64], pairs: Vector
) -> dict[str, float]:
    taus = {str(size): kendall_tau_or_none(pairs[indices == index]) for index, size in enumerate(resolutions)}
    return {size: tau for size, tau in taus.items() if tau is not None}
