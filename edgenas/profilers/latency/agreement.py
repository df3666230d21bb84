"""Comparison of a latency table's errors on fresh subnets with those of its holdout report, as pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from edgenas.costs import Genes, Vector
from edgenas.profilers.latency.holdout import kendall_tau_or_none
from edgenas.profilers.latency.table import LatencyTable

_PERMUTATIONS = 10_000
_SIGNIFICANCE_LEVEL = 0.05


@dataclass(frozen=True)
class ErrorMetrics:
    """Errors of predictions of whole subnets, predicted / measured - 1, and their statistics; shares are 0 to 1.

    Attributes:
        errors: The error of each subnet.
        mape: The mean absolute error.
        p95: The 95% quantile of the absolute errors.
        within_10_percent: The share of absolute errors of at most 0.1.
        within_interval: The coverage of the 95% interval of prediction, noise and drift together; without drift
            if the measurements are drift-corrected.
        bias: The mean error.
        kendall_tau: Kendall's tau over all pairs.
        tau_within: Kendall's tau over pairs of equal resolution, None without such a pair.
        p_value: The probability of a mean absolute error this much above that of the holdout report, if both
            samples are from one distribution.
    """

    errors: tuple[float, ...]
    mape: float
    p95: float
    within_10_percent: float
    within_interval: float
    bias: float
    kendall_tau: float
    tau_within: float | None
    p_value: float

    @property
    def agrees_with_holdout(self) -> bool:
        """True if the errors are consistent with the holdout report."""
        return self.p_value >= _SIGNIFICANCE_LEVEL


def compute_error_metrics(
    table: LatencyTable, genes: Genes, measured_ms: Vector, seed: int = 0, *, drift_corrected: bool = False
) -> ErrorMetrics:
    """Compare a table that has a holdout report with measured medians.

    Args:
        table: The table, fitted to measured subnets.
        genes: The fresh subnets (N, G).
        measured_ms: Their median latencies (N,), ms.
        seed: The seed of the permutation test.
        drift_corrected: True if drift was removed from ``measured_ms``; they are then compared with the
            drift-corrected errors of the report.
    """
    assert table.holdout is not None
    predicted = table.latency_ms(genes)
    errors = predicted / measured_ms - 1
    holdout_errors = table.holdout.drift_corrected if drift_corrected else table.holdout.errors
    residuals = table.standardized_residuals(genes, measured_ms, with_drift=not drift_corrected)
    return ErrorMetrics(
        errors=tuple(errors.tolist()),
        mape=float(np.abs(errors).mean()),
        p95=float(np.quantile(np.abs(errors), 0.95)),
        within_10_percent=float((np.abs(errors) <= 0.1).mean()),
        within_interval=float((residuals <= 1).mean()),
        bias=float(errors.mean()),
        kendall_tau=kendall_tau_or_none(np.column_stack([predicted, measured_ms])) or 0.0,
        tau_within=kendall_tau_within_resolution(genes, predicted, measured_ms),
        p_value=permutation_p_value(errors, np.array(holdout_errors), seed),
    )


def permutation_p_value(fresh: Vector, known: Vector, seed: int = 0) -> float:
    """Return the one-sided p-value of the hypothesis that fresh errors (N,) are no larger than known ones (M,).

    The statistic is the mean absolute error of the N. The value is the share, among 10,000 random divisions of all
    errors into N and M and the actual one, of divisions with an equal or larger statistic (R. A. Fisher, The
    Design of Experiments, 1935, section 21). The actual division counts, so the value is never 0.
    """
    pool = np.abs(np.concatenate([fresh, known]))
    orders = np.random.default_rng(seed).permuted(np.tile(pool, (_PERMUTATIONS, 1)), axis=1)
    # The mean of the N is enough: the sum of all is constant. Equal divisions may differ by rounding.
    as_large = orders[:, : len(fresh)].mean(axis=1) >= np.abs(fresh).mean() * (1 - 1e-9)
    return float((1 + as_large.sum()) / (1 + _PERMUTATIONS))


def kendall_tau_within_resolution(genes: Genes, predicted: Vector, measured: Vector) -> float | None:
    """Return Kendall's tau-a over pairs of subnets (N, G) of equal resolution, pooled; None without such a pair.

    Pairs of unequal resolution are left out: their size alone ranks them.
    """
    pairs = [pair for pair in combinations(range(len(genes)), 2) if genes[pair[0], 0] == genes[pair[1], 0]]
    if not pairs:
        return None
    first, second = np.array(pairs).T
    signs = np.sign(predicted[first] - predicted[second]) * np.sign(measured[first] - measured[second])
    return float(signs.mean())
