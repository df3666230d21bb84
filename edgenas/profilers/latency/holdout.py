"""The holdout report of a latency table: its errors on held-out subnets, and the conditions of measuring."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from annotated_types import Interval, MinLen

from edgenas.costs import Genes, Vector
from edgenas.files import Amount, Count, Fraction, Number, ShortText
from edgenas.profilers.latency.conditions import ConditionsSummary
from edgenas.profilers.latency.gaussian_process import PartProcess
from edgenas.profilers.latency.memory import memory_mape
from edgenas.profilers.measure.measurement import Measurement
from edgenas.space import SearchSpace
from edgenas.units import format_ms

TWO_SIDED_95 = 1.959964
# A table that orders fewer than three quarters of pairs is too coarse; fewer pairs say nothing.
_MIN_TAU, _MIN_PAIRS = 0.5, 10
# New names of keys in version 7 of tables, which hold a report.
KEYS_RENAMED_IN_TABLE_7 = {
    "certificate": "holdout",
    "levelled": "drift_corrected",
    "pace_ms": "probe_ms",
    "verdicts": "validity_counts",
    "trusted": "valid",
    "refused": "rejected",
}


_Correlation = Annotated[float, Interval(ge=-1, le=1)]


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
        kendall_tau: Kendall's tau over all pairs; sizes alone make it high.
        kendall_tau_within: Kendall's tau over the pairs of equal resolution; None without such a pair.
        compared_pairs: The number of these pairs.
        memory_mape: The mean absolute error of peak memory; None if the device does not report it, as with an
            accelerator.
        errors: Predicted / measured - 1 of each held-out subnet, in the order of measuring.
        fitted: The number of subnets that the table was fitted to.
        held_out: The number of held-out subnets.
        device_s: The device time of all these subnets, seconds.
        conditions: The state of the device.
        validity_counts: The number of measurements by validity.
        fastest: The id of the fastest of all measured subnets.
        fastest_ms: Its median latency.
        slowest: The id of the slowest of all measured subnets.
        slowest_ms: Its median latency.
        synthetic: True if a measurement is made up by a fake device.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    mape: Amount
    p95: Amount
    within_5_percent: Fraction
    within_10_percent: Fraction
    within_interval: Fraction
    noise: Amount
    drift: Amount
    bias: Number
    kendall_tau: _Correlation
    kendall_tau_within: _Correlation | None
    compared_pairs: Count
    memory_mape: Amount | None
    errors: Annotated[tuple[Number, ...], MinLen(1)]
    fitted: Count
    held_out: Count
    device_s: Amount
    conditions: ConditionsSummary
    validity_counts: dict[ShortText, Count]
    fastest: ShortText
    fastest_ms: Amount
    slowest: ShortText
    slowest_ms: Amount
    synthetic: bool

    def __repr__(self) -> str:
        return f"HoldoutReport({self.headline})"

    @property
    def mape_upper_bound(self) -> float:
        """The upper end of the 95% interval of the MAPE over all random subnets."""
        return mape_upper_bound(np.array(self.errors))

    @property
    def coarseness(self) -> str:
        """What is wrong with a table that can hardly tell subnets of one resolution apart; empty for others."""
        tau = self.kendall_tau_within
        if tau is None or self.compared_pairs < _MIN_PAIRS or tau >= _MIN_TAU:
            return ""
        ordered = f"orders {(1 + tau) / 2:.0%} of {self.compared_pairs} pairs at equal resolution"
        return f"{ordered}: profile with more --minutes"

    @property
    def headline(self) -> str:
        """The most important figures on one line."""
        tau = self.kendall_tau if self.kendall_tau_within is None else self.kendall_tau_within
        return (
            f"MAPE {self.mape:.1%}, within 10% {self.within_10_percent:.0%},"
            f" Kendall tau {tau:.2f} on {self.held_out} held-out subnets;"
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
        within = "" if self.kendall_tau_within is None else f"; {self.kendall_tau_within:.2f} at equal resolution"
        if self.memory_mape is None:
            memory = "-", "the device does not say; activations and weights are counted once each"
        else:
            memory = f"{self.memory_mape:.1%}", "of the peak above an empty session"
        return [
            *([("SYNTHETIC", "", "these numbers are made up")] if self.synthetic else []),
            ("MAPE", f"{self.mape:.1%}", f"of {self.held_out} random held-out subnets{bound_text}"),
            ("p95 of errors", f"{self.p95:.1%}", ""),
            ("within 5%", f"{self.within_5_percent:.0%}", ""),
            ("within 10%", f"{self.within_10_percent:.0%}", ""),
            ("bias", f"{self.bias:+.1%}", "above zero: predictions are too high"),
            ("Kendall tau", f"{self.kendall_tau:.2f}", f"over all pairs{within}"),
            *([("TOO COARSE", "", self.coarseness)] if self.coarseness else []),
            ("95% interval coverage", f"{self.within_interval:.0%}", "of prediction, noise and drift together"),
            ("noise", f"{self.noise:.1%}", "standard deviation of one measurement"),
            ("drift", f"{self.drift:.1%}", "standard deviation of the device's speed"),
            ("memory MAPE", *memory),
            ("fitted", str(self.fitted), f"subnets, {format_ms(self.fastest_ms)} to {format_ms(self.slowest_ms)}"),
            ("device time", _format_duration(self.device_s), ""),
            ("validity", "", validity),
            ("conditions", "", str(self.conditions)),
        ]


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


@dataclass(frozen=True, eq=False)
class MeasuredSubnets:
    """Measured subnets in the order of measuring.

    Attributes:
        genes: Their genes (N, G).
        latency_ms: Their median latencies (N,).
        peak_bytes: Their peak memory (N,); 0 if the device does not report it.
        processes: All their measurements.
    """

    genes: Genes
    latency_ms: Vector
    peak_bytes: Vector
    processes: tuple[Measurement, ...]

    @classmethod
    def of(cls, genes: Genes, processes: Sequence[Sequence[Measurement]]) -> MeasuredSubnets:
        """Return subnets (N, G) with the median over the processes of each."""
        latencies = [float(np.median([one.median_ms for one in each])) for each in processes]
        peaks = [max(one.peak_bytes or 0 for one in each) for each in processes]
        flat = tuple(one for each in processes for one in each)
        return cls(genes, np.array(latencies), np.array(peaks, dtype=np.float64), flat)

    def __len__(self) -> int:
        return len(self.genes)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted latencies with standard deviations, ms, and peak memory, bytes, of subnets, each (N,)."""

    latency_ms: Vector
    latency_std_ms: Vector
    peak_bytes: Vector


def standardize_residuals(process: PartProcess, predicted_ms: Vector, std_ms: Vector, measured_ms: Vector) -> Vector:
    """Return residuals (N,) of measured medians in half widths of the 95% interval.

    The interval is that of the prediction, one measurement's noise, and drift at its moment.
    """
    combined = np.hypot(std_ms / predicted_ms, np.hypot(process.noise_std, process.drift_std(predicted_ms)))
    return np.asarray(np.abs(predicted_ms / measured_ms - 1) / (TWO_SIDED_95 * combined))


def evaluate_holdout(
    space: SearchSpace,
    process: PartProcess,
    predictions: Predictions,
    subnets: MeasuredSubnets,
    held_out: npt.NDArray[np.bool_],
) -> HoldoutReport:
    """Compare predictions with the measurements of held-out subnets.

    Args:
        space: The search space.
        process: The fit to other subnets.
        predictions: Predictions for the H held-out subnets.
        subnets: The N measured subnets.
        held_out: The mask (N,) of the held-out subnets, at least one.
    """
    predicted, measured, peaks = predictions.latency_ms, subnets.latency_ms[held_out], subnets.peak_bytes[held_out]
    errors = predicted / measured - 1
    absolute = np.abs(errors)
    residuals = standardize_residuals(process, predicted, predictions.latency_std_ms, measured)
    tau_within, pairs = kendall_tau_at_equal_resolution(subnets.genes[held_out], predicted, measured)
    fastest, slowest = int(subnets.latency_ms.argmin()), int(subnets.latency_ms.argmax())
    ids = [architecture.id for architecture in space.decode(subnets.genes[[fastest, slowest]])]
    return HoldoutReport(
        mape=float(absolute.mean()),
        p95=float(np.quantile(absolute, 0.95)),
        within_5_percent=float((absolute <= 0.05).mean()),
        within_10_percent=float((absolute <= 0.1).mean()),
        within_interval=float((residuals <= 1).mean()),
        noise=process.noise_std,
        drift=float(np.median(process.drift_std(predicted))),
        bias=float(errors.mean()),
        kendall_tau=kendall_tau(predicted, measured),
        kendall_tau_within=tau_within,
        compared_pairs=pairs,
        memory_mape=memory_mape(predictions.peak_bytes, peaks) if peaks.any() else None,
        errors=tuple(errors.tolist()),
        fitted=len(process.observations.values),
        held_out=int(held_out.sum()),
        device_s=float(sum(measurement.device_s for measurement in subnets.processes)),
        conditions=ConditionsSummary.from_measurements(subnets.processes),
        validity_counts=dict(sorted(Counter(one.validity.status for one in subnets.processes).items())),
        fastest=ids[0],
        fastest_ms=float(subnets.latency_ms[fastest]),
        slowest=ids[1],
        slowest_ms=float(subnets.latency_ms[slowest]),
        synthetic=any(measurement.synthetic for measurement in subnets.processes),
    )


def kendall_tau(predicted: Vector, measured: Vector) -> float:
    """Return Kendall's tau-b of predicted and measured values (N,); 0 if it is undefined."""
    from scipy.stats import kendalltau

    tau = float(kendalltau(predicted, measured).statistic) if len(predicted) > 1 else 0.0
    return 0.0 if math.isnan(tau) else tau


def kendall_tau_at_equal_resolution(genes: Genes, predicted: Vector, measured: Vector) -> tuple[float | None, int]:
    """Return Kendall's tau-a over the pairs of subnets (N, G) of equal resolution, and their number; None without any.

    Pairs of unequal resolution are left out: their size alone ranks them.
    """
    first, second = np.triu_indices(len(genes), k=1)
    equal = genes[first, 0] == genes[second, 0]
    first, second = first[equal], second[equal]
    signs = np.sign(predicted[first] - predicted[second]) * np.sign(measured[first] - measured[second])
    return (float(signs.mean()), len(signs)) if len(signs) else (None, 0)
