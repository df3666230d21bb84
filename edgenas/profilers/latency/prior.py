"""The prior over the costs of parts: base costs fitted to all values, and the covariance of deviations from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgenas.costs import Vector
from edgenas.profilers.latency.curve import CURVE_KNOTS, interpolation_weights
from edgenas.profilers.latency.drift import Moments

MIN_NOISE = 0.002
OUTLIER_DEVIATIONS = 2.5  # a value further off, in standard deviations, loses weight
_ITERATIONS = 4  # of reweighting
_FAR_BELOW = 8  # times below the median: relative errors of such values would dominate all others
_MIN_SHARE = 0.02  # of the mean base cost, and of a base value: no part is certain to be free
_MAX_PENALTY = 0.2  # per expected share, if values are explained badly
_MIN_SLOPE = 0.2  # of a value's logarithm over its sum's
_CURVE_MARGIN, _CURVE_LENGTH = 0.5, 0.7  # octaves: extent beyond the base values, and length scale


@dataclass(frozen=True, eq=False)
class Observations:
    """Measured values.

    Attributes:
        counts: How often each part occurs in each value (N, P).
        values: The values (N,).
        moments: When each was measured (N,).
        weights: Sample weights (N,), at most 1, less for outliers.
    """

    counts: Vector
    values: Vector
    moments: Moments
    weights: Vector


@dataclass(frozen=True, eq=False)
class Features:
    """Features that base costs are weighted sums of.

    Attributes:
        of_parts: Features of the parts (P, F), >= 0.
        overheads: Features of the overhead (F,).
        max_shares: The share of a value that each feature is likely to explain at most (F,); infinite if unknown.
    """

    of_parts: Vector
    overheads: Vector
    max_shares: Vector

    @classmethod
    def with_overhead(cls, of_parts: Vector) -> Features:
        """Return features (P, F) of parts and one more for the overhead, all with unknown shares."""
        parts, count = of_parts.shape
        return cls(
            np.column_stack([of_parts, np.zeros(parts)]), np.array([*[0.0] * count, 1.0]), np.full(count + 1, np.inf)
        )


@dataclass(frozen=True, eq=False)
class PartBasis:
    """All that is known before measuring.

    Attributes:
        base_features: The features of base costs.
        detail_features: Features (P, E) >= 0 that deviations are linear in.
        similarities: Covariances (P, P) of the remaining deviations, by name.
        source_features: Base features with the costs on source targets among them, or None.
        transfer_weight: The share of the base costs that is from ``source_features``, from 0 to 1.
    """

    base_features: Features
    detail_features: Vector
    similarities: Mapping[str, Vector]
    source_features: Features | None = None
    transfer_weight: float = 0.0

    @property
    def term_names(self) -> list[str]:
        """The names of the variance components of deviations."""
        return [*self.similarities, "detail", "overhead", "curve"]


@dataclass(frozen=True, eq=False)
class Prior:
    """Base costs (P,) and overhead, and the prior covariance of deviations from them.

    The base cost of a part is a non-negative weighted sum of its features, of its costs on source targets, or a
    blend of both. Networks of equal size deviate alike from their sums: the weights of a large one, for example, do
    not stay in the cache from run to run. So deviations (D,), D = P + 1 + K, are: of each part's cost in units of
    its base cost; of the overhead in ``unit``, the median base value; and of the logarithm of values whose sums
    have the binary logarithms ``knots`` (K,). ``curve_covariance`` (K, K) is that of the last.
    """

    base: Vector
    overhead: float
    unit: float
    detail_features: Vector
    similarities: Mapping[str, Vector]
    knots: Vector
    curve_covariance: Vector

    @classmethod
    def fit(cls, basis: PartBasis, observations: Observations) -> Prior:
        """Fit base costs to all values; scale each detail feature as if it alone made up all of them."""
        counts = observations.counts
        overhead, base = _fit_overhead_and_base_costs(basis, observations)
        base = np.maximum(base, max(_MIN_SHARE * float(base.mean()), 1e-12))
        typical = (counts @ basis.detail_features).mean(axis=0)
        used = typical > 0
        detail = basis.detail_features[:, used] / typical[used] * float((counts @ base).mean()) / base[:, None]
        values = overhead + counts @ base
        knots, curve_covariance = _curve_knots_and_covariance(np.log2(values))
        return cls(base, overhead, float(np.median(values)), detail, basis.similarities, knots, curve_covariance)

    @property
    def lower_bounds(self) -> Vector:
        """The deviations (D,) at which costs are zero."""
        return np.array([*[-1.0] * len(self.base), -self.overhead / self.unit, *[-np.inf] * len(self.knots)])

    def covariance(self, variances: Mapping[str, float]) -> Vector:
        """Return the prior covariance of the deviations (D, D)."""
        parts, size = len(self.base), len(self.lower_bounds)
        total = np.zeros((size, size))
        total[:parts, :parts] = variances["detail"] * self.detail_features @ self.detail_features.T
        for name, similarity in self.similarities.items():
            total[:parts, :parts] += variances[name] * similarity
        total[parts, parts] = variances["overhead"]
        total[parts + 1 :, parts + 1 :] = variances["curve"] * self.curve_covariance
        return total

    def values_and_jacobian(self, counts: Vector, deviations: Vector) -> tuple[Vector, Vector]:
        """Return the values (M,) of sums (M, P) at deviations (D,), and the Jacobian of their logarithms (M, D)."""
        summed = len(self.base) + 1
        costs = np.column_stack([counts * self.base, np.full(len(counts), self.unit)])
        base = self.overhead + counts @ self.base
        sums = np.maximum(base + costs @ deviations[:summed], _MIN_SHARE * base)
        logs = deviations[summed:]
        weights = interpolation_weights(np.log2(sums), self.knots)
        slope = weights @ np.gradient(logs, self.knots * np.log(2))  # a larger sum moves along the curve, too
        shares = costs / sums[:, None] * np.maximum(1 + slope, _MIN_SLOPE)[:, None]
        return sums * np.exp(weights @ logs), np.hstack([shares, weights])


@dataclass(frozen=True, eq=False)
class Linearization:
    """The logarithms of measured values as linear functions of deviations (D,), around some of these.

    Logarithms, so that half as long and twice as long are equally far.

    Attributes:
        expected: The values there (N,).
        jacobian: The derivatives (N, D): shares of parts and overhead, and weights of the curve's knots.
        response: The working response (N,): measured logarithms less those of a deviation of zero.
    """

    expected: Vector
    jacobian: Vector
    response: Vector

    @classmethod
    def at(cls, deviations: Vector, prior: Prior, observations: Observations) -> Linearization:
        """Return the linearization at ``deviations`` (D,)."""
        expected, jacobian = prior.values_and_jacobian(observations.counts, deviations)
        return cls(expected, jacobian, np.log(observations.values / expected) + jacobian @ deviations)

    def select_rows(self, rows: Vector) -> Linearization:
        """Return the linearization of some values only."""
        return Linearization(self.expected[rows], self.jacobian[rows], self.response[rows])

    def term_covariances(self, prior: Prior) -> dict[str, Vector]:
        """Return the covariance (N, N) of values by each term, at a variance of one."""
        parts = len(prior.base)
        shares, overhead, weights = self.jacobian[:, :parts], self.jacobian[:, parts], self.jacobian[:, parts + 1 :]
        terms = {name: shares @ similarity @ shares.T for name, similarity in prior.similarities.items()}
        detail = shares @ prior.detail_features
        terms["detail"] = detail @ detail.T
        terms["overhead"] = np.outer(overhead, overhead)
        terms["curve"] = weights @ prior.curve_covariance @ weights.T
        return terms


def fit_non_negative(
    columns: Vector, values: Vector, sample_weight: Vector | None = None, penalty: Vector | None = None
) -> Vector:
    """Return weights >= 0 (K,) of the least squared relative error: costs add up and never save time.

    Args:
        columns: The features (N, K).
        values: The values (N,) to approximate by ``columns`` times the weights.
        sample_weight: The weight (N,) of each squared error, 1 by default.
        penalty: A factor (K,) on each weight, the squares of which are added to the loss, 0 by default.
    """
    from scipy.optimize import nnls

    root = np.ones(len(values)) if sample_weight is None else np.sqrt(sample_weight)
    scale = np.maximum(np.abs(columns).max(axis=0), 1e-12)
    scaled = columns / scale * (root / values)[:, None]
    if penalty is not None:
        scaled, root = np.vstack([scaled, np.diag(penalty / scale)]), np.append(root, np.zeros(len(penalty)))
    weights: Vector = nnls(scaled, root)[0] / scale
    return weights


def _fit_overhead_and_base_costs(basis: PartBasis, observations: Observations) -> tuple[float, Vector]:
    """Return overhead and base costs (P,), blended by the transfer weight."""
    overhead, base = _fit_overhead_and_costs(basis.base_features, observations)
    if basis.source_features is None:
        return overhead, base
    source_overhead, source_base = _fit_overhead_and_costs(basis.source_features, observations)
    weight = basis.transfer_weight
    return (1 - weight) * overhead + weight * source_overhead, (1 - weight) * base + weight * source_base


def _fit_overhead_and_costs(features: Features, observations: Observations) -> tuple[float, Vector]:
    """Return overhead and costs (P,) as weighted sums of features, by iteratively reweighted least squares."""
    values = observations.values
    columns = observations.counts @ features.of_parts + features.overheads
    typical = (columns / values[:, None]).mean(axis=0) / features.max_shares
    sample_weight = np.minimum(1.0, (_FAR_BELOW * values / np.median(values)) ** 2)
    penalty = np.zeros(len(typical))
    for _ in range(_ITERATIONS):
        weights = fit_non_negative(columns, values, sample_weight, penalty)
        error = np.abs(columns @ weights / values - 1)
        scale = max(1.4826 * float(np.median(error)), MIN_NOISE)
        sample_weight = np.minimum(1.0, (OUTLIER_DEVIATIONS * scale / np.maximum(error, scale)) ** 2)
        penalty = min(scale, _MAX_PENALTY) * typical
    return float(features.overheads @ weights), features.of_parts @ weights


def _curve_knots_and_covariance(logs: Vector) -> tuple[Vector, Vector]:
    """Return knots (K,) around the logarithms of base values (N,), and the covariance (K, K) of a smooth curve there.

    The least-squares line over the values is removed: the part costs explain it.
    """
    knots = np.linspace(logs.min() - _CURVE_MARGIN, logs.max() + _CURVE_MARGIN, CURVE_KNOTS)
    smooth = np.exp(-0.5 * ((knots[:, None] - knots) / _CURVE_LENGTH) ** 2)
    weights, line = interpolation_weights(logs, knots), np.column_stack([np.ones(CURVE_KNOTS), knots])
    without_line = np.eye(CURVE_KNOTS) - line @ np.linalg.pinv(weights @ line) @ weights
    return knots, without_line @ smooth @ without_line.T
