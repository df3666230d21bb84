"""Whether fresh errors of a latency table are what its certificate leads to expect. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from edgenas.costs import Genes, Vector
from edgenas.profilers.latency.holdout import tau_of

if TYPE_CHECKING:
    from edgenas.profilers.latency.table import LatencyTable

_PERMUTATIONS = 10_000
_LEAST_P = 0.05


@dataclass(frozen=True)
class Figures:
    """Errors of predictions of whole subnets, predicted / measured - 1, and what they come to; shares are 0 to 1.

    ``tau_within`` is Kendall's over pairs of equal resolution, None where there
    are none. ``within_interval``: the share within the 95% interval of
    prediction, noise and, unless it was taken out, drift together. ``p_value``: the probability
    of errors as much larger than the certificate's, if both are alike.
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
    def agree(self) -> bool:
        """Whether errors like these are to be expected of the certificate."""
        return self.p_value >= _LEAST_P


def figures(
    table: LatencyTable, genes: Genes, measured_ms: Vector, seed: int = 0, *, drift_corrected: bool = False
) -> Figures:
    """Hold a table that has a certificate against measured medians (N,) of subnets (N, G); ``seed`` permutes.

    ``drift_corrected``: drift was taken out of them, so they are held against the
    certificate's errors of which that is true.
    """
    assert table.holdout is not None
    predicted = table.latency_ms(genes)
    signed = predicted / measured_ms - 1
    known = table.holdout.drift_corrected if drift_corrected else table.holdout.errors
    return Figures(
        errors=tuple(signed.tolist()),
        mape=float(np.abs(signed).mean()),
        p95=float(np.quantile(np.abs(signed), 0.95)),
        within_10_percent=float((np.abs(signed) <= 0.1).mean()),
        within_interval=float(
            (table.standardized_residuals(genes, measured_ms, drifting=not drift_corrected) <= 1).mean()
        ),
        bias=float(signed.mean()),
        kendall_tau=tau_of(np.column_stack([predicted, measured_ms])) or 0.0,
        tau_within=tau_within(genes, predicted, measured_ms),
        p_value=chance_of_worse(signed, np.array(known), seed),
    )


def chance_of_worse(fresh: Vector, known: Vector, seed: int = 0) -> float:
    """How probable it is that errors (N,) are on average as much larger than known ones (M,) if both are alike.

    One-sided permutation test of the mean absolute error: of 10,000 random
    divisions of all errors into N and M, and the one at hand, the share in which
    the N are at least as far off (R. A. Fisher, The Design of Experiments, 1935,
    section 21; the division at hand counts, so that it is never 0).
    """
    pool = np.abs(np.concatenate([fresh, known]))
    orders = np.random.default_rng(seed).permuted(np.tile(pool, (_PERMUTATIONS, 1)), axis=1)
    # The mean of the N decides: all sums are the same. Equal divisions add up in another order.
    found = orders[:, : len(fresh)].mean(axis=1) >= np.abs(fresh).mean() * (1 - 1e-9)
    return float((1 + found.sum()) / (1 + _PERMUTATIONS))


def tau_within(genes: Genes, predicted: Vector, measured: Vector) -> float | None:
    """Kendall's tau-a over the pairs of subnets (N, G) of equal resolution, pooled; None where there is no such pair.

    Pairs of unequal resolution are ranked by their size alone, whatever a table knows.
    """
    pairs = [pair for pair in combinations(range(len(genes)), 2) if genes[pair[0], 0] == genes[pair[1], 0]]
    if not pairs:
        return None
    first, second = np.array(pairs).T
    agree = np.sign(predicted[first] - predicted[second]) * np.sign(measured[first] - measured[second])
    return float(agree.mean())
