"""What a latency table says of itself: how far it was from subnets that it had not seen, and how they were measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgenas.costs import Genes, Vector
from edgenas.profilers.latency.memory import memory_mape
from edgenas.profilers.measure.baseline_speed import common_baseline
from edgenas.profilers.measure.measurement import Measurement
from edgenas.profilers.measure.reference_model import DriftMonitor
from edgenas.units import format_ms

if TYPE_CHECKING:
    from edgenas.profilers.latency.table import LatencyTable

TWO_SIDED_95 = 1.959964
# Bits of a Raspberry Pi's get_throttled for a capped or lowered frequency.
_THROTTLED = 0b1110


@dataclass(frozen=True)
class ConditionsSummary:
    """The state of the device while a table was measured; None where it does not say.

    ``frequency_khz`` and ``temperature_c`` are the least and the greatest that
    were read, ``frequency_limit_khz`` the lowest bound that was set.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    governor: str | None = None
    frequency_khz: tuple[int, int] | None = None
    frequency_limit_khz: int | None = None
    temperature_c: tuple[float, float] | None = None
    throttled: bool | None = None
    power_mode: str | None = None

    @classmethod
    def of(cls, measurements: Sequence[Measurement]) -> ConditionsSummary:
        """What measurements say of the device before and after each of them."""
        states = [state for each in measurements for state in (each.conditions_before, each.conditions_after)]

        def known(*names: str) -> list[Any]:
            return [state[name] for state in states for name in names if state.get(name) is not None]

        limits = known("frequency_limit_khz")
        return cls(
            governor=", ".join(sorted(set(known("governor")))) or None,
            frequency_khz=_ends(known("frequency_khz", "lowest_frequency_khz")),
            frequency_limit_khz=min(limits) if limits else None,
            temperature_c=_ends(known("temperature_c")),
            throttled=_throttled(known("throttle_count"), known("throttled_flags")),
            power_mode=", ".join(sorted(set(known("power_mode")))) or None,
        )

    def __str__(self) -> str:
        speeds = [each / 1e3 for each in self.frequency_khz or ()]
        said = [
            "" if self.governor is None else f"governor {self.governor}",
            "{:.0f} to {:.0f} MHz".format(*speeds) if speeds else "",
            "" if self.frequency_limit_khz is None else f"limit {self.frequency_limit_khz / 1e3:.0f} MHz",
            "{:.0f} to {:.0f} °C".format(*self.temperature_c) if self.temperature_c else "",
            {True: "THROTTLED", False: "not throttled", None: ""}[self.throttled],
            "" if self.power_mode is None else f"power mode {self.power_mode}",
        ]
        return ", ".join(text for text in said if text) or "the device does not say"


def _ends(values: Sequence[Any]) -> tuple[Any, Any] | None:
    return (min(values), max(values)) if values else None


def _throttled(counts: Sequence[int], flags: Sequence[int]) -> bool | None:
    if not counts and not flags:
        return None
    return (bool(counts) and counts[-1] > counts[0]) or any(each & _THROTTLED for each in flags)


@dataclass(frozen=True)
class HoldoutReport:
    """How far a table's predictions were from random subnets that it was not fitted to; errors are fractions.

    ``errors``: of each held-out subnet, predicted / measured - 1, in the order
    of measuring; ``drift_corrected``: the same less the drift that the fitted subnets
    measured around it show. ``kendall_tau_at``: by resolution, for pooled over all
    it is high whatever a table knows of one. ``noise``: the standard deviation
    that one measurement has by itself, as the fit estimates it; ``drift``: that of
    what all share at one moment, by the median held-out subnet.
    ``within_interval``: the share of held-out measurements within the 95%
    interval of prediction, noise and drift together. ``memory_mape``: None where
    the device does not say what a process held, as with an accelerator.
    ``device_s``: of these subnets, with the reference model between them, which
    usually took ``reference_ms``; None where it was not run. ``probe_ms``: the usual
    pace of the device's CPU, which latencies are at; None where the model does not
    run on that alone.
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

    @property
    def mape_at_most(self) -> float:
        """The upper end of the 95% interval of the MAPE over all random subnets."""
        return mape_at_most(np.array(self.errors))

    @property
    def headline(self) -> str:
        """The figures that matter most, on one line."""
        return (
            f"MAPE {self.mape:.1%}, within 10% {self.within_10_percent:.0%}, Kendall tau {_taus(self.kendall_tau_at)}"
            f" on {self.held_out} unseen subnets; {self.fitted} fitted, {_duration(self.device_s)} of device time"
            + (" SYNTHETIC" if self.synthetic else "")
        )

    @property
    def _memory(self) -> tuple[str, str]:
        if self.memory_mape is None:
            return "-", "the device does not say; activations and weights are counted once each"
        return f"{self.memory_mape:.1%}", "of the peak above an empty session"

    def __str__(self) -> str:
        rows = self._rows()
        names, values = (max(len(row[column]) for row in rows) for column in (0, 1))
        return "\n".join(f"{name:<{names}}  {value:>{values}}  {note}".rstrip() for name, value, note in rows)

    def _rows(self) -> list[tuple[str, str, str]]:
        """Name, value and remark of each line of a listing."""
        most = self.mape_at_most
        sure = "" if math.isinf(most) else f", at most {most:.1%} at 95% confidence"
        validity_counts = ", ".join(f"{count} {validity}" for validity, count in self.validity_counts.items())
        taus = _taus(self.kendall_tau_at, "{} px: {:.2f}")
        return [
            *([("SYNTHETIC", "", "these numbers are made up")] if self.synthetic else []),
            ("MAPE", f"{self.mape:.1%}", f"of {self.held_out} random unseen subnets{sure}"),
            ("  less drift", f"{np.abs(self.drift_corrected).mean():.1%}", "what all share at one moment"),
            ("p95 of errors", f"{self.p95:.1%}", ""),
            ("within 5%", f"{self.within_5_percent:.0%}", ""),
            ("within 10%", f"{self.within_10_percent:.0%}", ""),
            ("bias", f"{self.bias:+.1%}", "above zero: predicts too much"),
            ("Kendall tau", f"{self.kendall_tau:.2f}", f"pooled; {taus}" if taus else "pooled"),
            ("within 95% interval", f"{self.within_interval:.0%}", "with noise and drift of a measurement"),
            ("noise", f"{self.noise:.1%}", "standard deviation of one measurement"),
            ("drift", f"{self.drift:.1%}", "standard deviation of what all share at one moment"),
            ("memory MAPE", *self._memory),
            ("fitted", str(self.fitted), f"subnets, {format_ms(self.fastest_ms)} to {format_ms(self.slowest_ms)}"),
            ("device time", _duration(self.device_s), ""),
            ("validity_counts", "", validity_counts),
            ("conditions", "", str(self.conditions)),
        ]


def _taus(taus: dict[str, float], form: str = "{}: {:.2f}") -> str:
    return ", ".join(form.format(resolution, tau) for resolution, tau in taus.items())


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def mape_at_most(errors: Vector) -> float:
    """The upper end of the 95% interval (Student's t) of the mean absolute error, infinite for fewer than two."""
    if len(errors) < 2:
        return math.inf
    from scipy.special import stdtrit

    away = np.abs(errors)
    student = float(stdtrit(len(away) - 1, 0.975))
    return float(away.mean() + student * away.std(ddof=1) / math.sqrt(len(away)))


def latency_and_memory(measurements: Sequence[Measurement]) -> tuple[Vector, Vector]:
    """Median latencies in ms and peak memory in bytes, 0 where the device does not say; each (N,)."""
    peaks = [measurement.peak_bytes or 0 for measurement in measurements]
    return np.array([each.median_ms for each in measurements]), np.array(peaks, dtype=np.float64)


def evaluate_holdout(
    table: LatencyTable,
    genes: Genes,
    measurements: Sequence[Measurement],
    held_out: npt.NDArray[np.bool_],
    reference: Sequence[Measurement] = (),
) -> HoldoutReport:
    """Hold a table against the measurements (N,) of genes (N, G) in the mask ``held_out`` (N,), not empty."""
    assert table.process is not None
    latency, memory = latency_and_memory(measurements)
    predicted, predicted_memory = table.latency_ms(genes), table.peak_bytes(genes)
    signed = (predicted / latency - 1)[held_out]
    error = np.abs(signed)
    validity_counts = [measurement.validity.status for measurement in measurements]
    fastest, slowest = int(latency.argmin()), int(latency.argmax())
    ids = [architecture.id for architecture in table.space.decode(genes[[fastest, slowest]])]
    pairs = np.column_stack([predicted, latency])[held_out]
    at_s = np.array([measurement.taken_s for measurement in measurements])
    drift = table.process.drift_at(at_s[held_out], predicted[held_out])
    return HoldoutReport(
        mape=float(error.mean()),
        p95=float(np.quantile(error, 0.95)),
        within_5_percent=float((error <= 0.05).mean()),
        within_10_percent=float((error <= 0.1).mean()),
        within_interval=float((table.standardized_residuals(genes[held_out], latency[held_out]) <= 1).mean()),
        noise=table.process.noise,
        drift=float(np.median(table.process.drift(predicted[held_out]))),
        bias=float(signed.mean()),
        kendall_tau=tau_of(pairs) or 0.0,
        kendall_tau_at=_tau_at(table.space.resolutions, genes[held_out, 0], pairs),
        memory_mape=memory_mape(predicted_memory[held_out], memory[held_out]) if memory[held_out].any() else None,
        errors=tuple(signed.tolist()),
        drift_corrected=tuple(((1 + signed) * np.exp(drift) - 1).tolist()),
        fitted=int((~held_out).sum()),
        held_out=int(held_out.sum()),
        device_s=float(sum(measurement.device_s for measurement in (*measurements, *reference))),
        reference_ms=DriftMonitor(reference).baseline_ms,
        probe_ms=common_baseline(measurements),
        conditions=ConditionsSummary.of(measurements),
        validity_counts={status: validity_counts.count(status) for status in sorted(set(validity_counts))},
        fastest=ids[0],
        fastest_ms=float(latency[fastest]),
        slowest=ids[1],
        slowest_ms=float(latency[slowest]),
        synthetic=any(measurement.synthetic for measurement in measurements),
    )


def tau_of(pairs: Vector) -> float | None:
    """Kendall's tau of predicted and measured (N, 2); None where it is not defined."""
    from scipy.stats import kendalltau

    if len(pairs) < 2:
        return None
    tau = float(kendalltau(*pairs.T).statistic)
    return None if math.isnan(tau) else tau


def _tau_at(resolutions: Sequence[int], chosen: npt.NDArray[np.int64], pairs: Vector) -> dict[str, float]:
    found = {str(size): tau_of(pairs[chosen == place]) for place, size in enumerate(resolutions)}
    return {size: tau for size, tau in found.items() if tau is not None}
