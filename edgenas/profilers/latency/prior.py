"""What is known of the costs of parts before their deviations are inferred, and how sums of them are seen.

The base cost of a part is a weighted sum of its features, or of what the part
costs on other targets, or lies between the two; weights are not negative. Parts
deviate from that, and so a measured value deviates by its parts' shares in it.
Beside that, networks as large as each other deviate from their sums alike: a
large one's weights, for example, do not stay in the cache from run to run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgenas.costs import Vector
from edgenas.profilers.latency.curve import CURVE_KNOTS, interpolation_weights
from edgenas.profilers.latency.non_negative import fit_non_negative

LEAST_NOISE = 0.002
USUAL = 2.5  # standard deviations from which on a value counts less
_ROUNDS = 4  # of reweighting
_FAR_BELOW = 8  # times below the median: relative errors of such values would outweigh all others
_LEAST_SHARE = 0.02  # of the mean base cost, and of a base value: nothing is certain to be free
_MOST_DOUBT = 0.2  # however badly values are explained, doubted features are not kept out by more
_LEAST_SLOPE = 0.2  # of a value's logarithm over its sum's
_MARGIN, _LENGTH = 0.5, 0.7  # octaves: how far the curve goes beyond base values, and within which it is alike


@dataclass(frozen=True, eq=False)
class Observations:
    """Values that were measured: ``counts`` (N, P) of parts in each, ``values`` (N,), and when, seconds (N,).

    ``weights`` (N,) are at most 1, lower for values that fit nowhere.
    """

    counts: Vector
    values: Vector
    at_s: Vector
    weights: Vector


@dataclass(frozen=True, eq=False)
class Features:
    """What base costs are weighted sums of.

    ``of_parts``: features (P, F) >= 0 of parts. ``overheads``: what each of them
    says of the overhead, (F,). ``expected``: which share of a value each of them
    is likely to make up at most, (F,); infinite where nothing is known of that.
    """

    of_parts: Vector
    overheads: Vector
    expected: Vector

    @classmethod
    def with_overhead(cls, of_parts: Vector) -> Features:
        """Features (P, F) that say nothing of the overhead, and one more that is the overhead; of any shares."""
        parts, count = of_parts.shape
        return cls(
            np.column_stack([of_parts, np.zeros(parts)]), np.array([*[0.0] * count, 1.0]), np.full(count + 1, np.inf)
        )


@dataclass(frozen=True, eq=False)
class PartBasis:
    """What is known before measuring.

    ``plain``: what base costs are made of; with ``others``, to which other
    targets' costs belong, they are ``lean`` of what those give and the rest of
    what ``plain`` gives, from 0 (the others do not count) to 1.
    ``detail``: features (P, E) >= 0 that deviations are linear in.
    ``similarities``: covariances (P, P) of the remaining deviations.
    """

    plain: Features
    detail: Vector
    similarities: Mapping[str, Vector]
    others: Features | None = None
    transfer_weight: float = 0.0

    @property
    def terms(self) -> list[str]:
        """The names of what deviations are made of."""
        return [*self.similarities, "detail", "overhead", "curve"]


@dataclass(frozen=True, eq=False)
class Prior:
    """Base costs (P,) and overhead, and what deviations from them are likely.

    Deviations are (P + 1 + K,): of each part's cost in units of its base cost, of
    the overhead in ``unit``, the median base value, and of the logarithm of
    values whose sums have the binary logarithms ``knots`` (K,); ``bend`` (K, K)
    is how alike the latter are.
    """

    base: Vector
    overhead: float
    unit: float
    detail: Vector
    similarities: Mapping[str, Vector]
    knots: Vector
    bend: Vector

    @classmethod
    def of(cls, basis: PartBasis, observations: Observations) -> Prior:
        """Base costs from all values, and each detail as a share of them, as if it alone made up all of it."""
        counts = observations.counts
        overhead, base = _base(basis, observations)
        base = np.maximum(base, max(_LEAST_SHARE * float(base.mean()), 1e-12))
        typical = (counts @ basis.detail).mean(axis=0)
        used = typical > 0
        detail = basis.detail[:, used] / typical[used] * float((counts @ base).mean()) / base[:, None]
        values = overhead + counts @ base
        return cls(base, overhead, float(np.median(values)), detail, basis.similarities, *_curve(np.log2(values)))

    @property
    def least(self) -> Vector:
        """The deviations at which nothing costs anything, (P + 1 + K,)."""
        return np.array([*[-1.0] * len(self.base), -self.overhead / self.unit, *[-np.inf] * len(self.knots)])

    def covariance(self, variances: Mapping[str, float]) -> Vector:
        """Of the deviations before anything was measured, (P + 1 + K, P + 1 + K)."""
        parts, size = len(self.base), len(self.least)
        total = np.zeros((size, size))
        total[:parts, :parts] = variances["detail"] * self.detail @ self.detail.T
        for name, similarity in self.similarities.items():
            total[:parts, :parts] += variances[name] * similarity
        total[parts, parts] = variances["overhead"]
        total[parts + 1 :, parts + 1 :] = variances["curve"] * self.bend
        return total

    def see(self, counts: Vector, deviations: Vector) -> tuple[Vector, Vector]:
        """The values (M,) of sums (M, P) at some deviations, and how their logarithms change with these, (M, ...)."""
        summed = len(self.base) + 1
        costs = np.column_stack([counts * self.base, np.full(len(counts), self.unit)])
        base = self.overhead + counts @ self.base
        sums = np.maximum(base + costs @ deviations[:summed], _LEAST_SHARE * base)
        logs = deviations[summed:]
        curved = interpolation_weights(np.log2(sums), self.knots)
        slope = curved @ np.gradient(logs, self.knots * np.log(2))  # moving along the curve, too, changes a value
        shares = costs / sums[:, None] * np.maximum(1 + slope, _LEAST_SLOPE)[:, None]
        return sums * np.exp(curved @ logs), np.hstack([shares, curved])


@dataclass(frozen=True, eq=False)
class Linearization:
    """How the logarithms of values see deviations, to first order around some of these.

    ``shares`` (N, P + 1 + K) are each value's parts, its overhead and its place
    on the curve, ``residual`` (N,) is what they leave unexplained of the
    ``expected`` (N,). The logarithm makes half as long and twice as long equally
    far.
    """

    expected: Vector
    shares: Vector
    residual: Vector

    @classmethod
    def around(cls, deviations: Vector, prior: Prior, observations: Observations) -> Linearization:
        """The view at ``deviations`` (P + 1 + K,)."""
        expected, shares = prior.see(observations.counts, deviations)
        return cls(expected, shares, np.log(observations.values / expected) + shares @ deviations)

    def of(self, chosen: Vector) -> Linearization:
        """The view of some values only."""
        return Linearization(self.expected[chosen], self.shares[chosen], self.residual[chosen])

    def terms(self, prior: Prior) -> dict[str, Vector]:
        """The covariance (N, N) of values by each term, at a strength of one."""
        parts = len(prior.base)
        shares, overhead, curved = self.shares[:, :parts], self.shares[:, parts], self.shares[:, parts + 1 :]
        terms = {name: shares @ each @ shares.T for name, each in prior.similarities.items()}
        linear = shares @ prior.detail
        terms["detail"] = linear @ linear.T
        return {**terms, "overhead": np.outer(overhead, overhead), "curve": curved @ prior.bend @ curved.T}


def _base(basis: PartBasis, observations: Observations) -> tuple[float, Vector]:
    """Overhead and base costs (P,)."""
    overhead, base = _fit_base(basis.plain, observations)
    if basis.others is None:
        return overhead, base
    other_overhead, other_base = _fit_base(basis.others, observations)
    transfer_weight = basis.transfer_weight
    return (1 - transfer_weight) * overhead + transfer_weight * other_overhead, (
        1 - transfer_weight
    ) * base + transfer_weight * other_base


def _fit_base(features: Features, observations: Observations) -> tuple[float, Vector]:
    """The same of some features, without much regard to values that fit nowhere."""
    values = observations.values
    columns = observations.counts @ features.of_parts + features.overheads
    typical = (columns / values[:, None]).mean(axis=0) / features.expected
    trust = np.minimum(1.0, (_FAR_BELOW * values / np.median(values)) ** 2)
    doubt = np.zeros(len(typical))
    for _ in range(_ROUNDS):
        weights = fit_non_negative(columns, values, trust, doubt)
        error = np.abs(columns @ weights / values - 1)
        scale = max(1.4826 * float(np.median(error)), LEAST_NOISE)
        trust = np.minimum(1.0, (USUAL * scale / np.maximum(error, scale)) ** 2)
        doubt = min(scale, _MOST_DOUBT) * typical
    return float(features.overheads @ weights), features.of_parts @ weights


def _curve(logs: Vector) -> tuple[Vector, Vector]:
    """Knots (K,) around the logarithms of base values (N,), and the covariance (K, K) of a smooth curve there.

    A straight line is taken out, as least squares over the values has it: that is
    for the parts to say.
    """
    knots = np.linspace(logs.min() - _MARGIN, logs.max() + _MARGIN, CURVE_KNOTS)
    smooth = np.exp(-0.5 * ((knots[:, None] - knots) / _LENGTH) ** 2)
    placed, line = interpolation_weights(logs, knots), np.column_stack([np.ones(CURVE_KNOTS), knots])
    bent = np.eye(CURVE_KNOTS) - line @ np.linalg.pinv(placed @ line) @ placed
    return knots, bent @ smooth @ bent.T
