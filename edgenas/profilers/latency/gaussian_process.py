"""A Gaussian process over the costs of parts that is only seen through sums of them.

The cost of part p is ``base[p] * (1 + deviation[p])``; the deviations are jointly
normal with mean zero, and alike parts deviate alike. A measured value is the
overhead plus its parts' costs, times exp(curve + drift + noise), where the curve
is a smooth function of that sum, and drift is a slow process in time that all
share, as equal shares or equal amounts: a machine that others use as well is now
faster, now slower. Sums of normals are normal, so the posterior of the part
costs is exact (C. E. Rasmussen, C. K. I. Williams, Gaussian Processes for Machine
Learning, 2006, chapters 2 and 5) but for the logarithm, whose slope is taken
where the posterior mean lies (Laplace's approximation, section 3.4 there). That
mean is a table that is added up. How strong each term is follows from marginal
likelihood; single values that fit nowhere lose weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # it says nothing of its types

from edgenas.costs import Vector
from edgenas.errors import UsageError
from edgenas.profilers.latency.curve import Curve
from edgenas.profilers.latency.drift import DRIFTS, cross_drifts, drift_variance, drifts, mean_drifts
from edgenas.profilers.latency.prior import LEAST_NOISE, USUAL, Linearization, Observations, PartBasis, Prior
from edgenas.profilers.latency.variance_components import estimate_variances, guess, log_prior, noise_of

_ROUNDS = 4  # of reweighting
_LEAST_SQUARE = 1e-12  # of an error: one value alone has none
_MOST_STEPS, _STILL = 8, 1e-5  # towards where the logarithm's slope is taken; deviations that move no more
_MOST_HOLDS, _HOLD_NOISE, _HOLD_TOLERANCE = 20, 1e-6, 1e-3
_ANY_SHARE = 1.0  # the variance of the logarithm of a device's speed of which nothing is known
_MOST_FOR_STRENGTHS = 400  # values that strengths are estimated from; more add time, not knowledge


@dataclass(frozen=True, eq=False)
class PartProcess:
    """The posterior of part costs. ``strengths``: the variance of each term by name, relative to base costs."""

    basis: PartBasis
    observations: Observations
    variances: Mapping[str, float]

    @cached_property
    @threadpool_limits.wrap(1)  # type: ignore[untyped-decorator]
    def _posterior(self) -> _Posterior:
        prior = Prior.of(self.basis, self.observations)
        covariance = prior.covariance(self.variances)
        deviations = np.zeros(len(covariance))
        for _ in range(_MOST_STEPS):
            linearization = Linearization.around(deviations, prior, self.observations)
            found = _Posterior.of(prior, covariance, linearization, self.observations, self.variances)
            moved, deviations = np.abs(found.deviations - deviations).max(), found.deviations
            if moved < _STILL:
                break
        return found

    @cached_property
    def costs(self) -> Vector:
        """The posterior mean of each part's cost (P,), never negative."""
        base = self._posterior.prior.base
        costs: Vector = base * (1 + self._posterior.deviations[: len(base)])
        return costs

    @cached_property
    def overhead(self) -> float:
        """The posterior mean of what a value has beside its parts, never negative."""
        prior = self._posterior.prior
        return float(prior.overhead + prior.unit * self._posterior.deviations[len(prior.base)])

    @cached_property
    def curve(self) -> Curve:
        """The posterior mean of how values deviate from their sums."""
        prior = self._posterior.prior
        return Curve(prior.knots, self._posterior.deviations[len(prior.base) + 1 :])

    def predict(self, counts: Vector) -> Vector:
        """The values (M,) of sums (M, P) at the posterior mean."""
        return self.curve(self.overhead + counts @ self.costs)

    @property
    def terms(self) -> list[str]:
        """The names of the ``strengths``."""
        return [*self.basis.terms, *DRIFTS, "noise"]

    @property
    def noise(self) -> float:
        """The standard deviation of one measured value around drift and true value, relative."""
        return float(np.sqrt(self.variances["noise"]))

    @cached_property
    def _mean_drift(self) -> dict[str, float]:
        return {name: self.variances[name] * mean for name, mean in mean_drifts(self.observations.at_s).items()}

    def drift(self, values: Vector) -> Vector:
        """The standard deviation (M,) of how much slower than usual all is at a moment, relative to values (M,)."""
        return np.asarray(np.sqrt(drift_variance(self.variances, self._posterior.prior.unit / values)))

    @threadpool_limits.wrap(1)  # type: ignore[untyped-decorator]
    def drift_at(self, at_s: Vector, values: Vector) -> Vector:
        """How much slower than usual values (M,) were at times (M,), as logarithms, by what was fitted around then."""
        found, unit = self._posterior, self._posterior.prior.unit
        linearization = Linearization.around(found.deviations, found.prior, self.observations)
        cross = cross_drifts(self.observations.at_s, unit / linearization.expected, at_s, unit / values)
        total = sum(self.variances[name] * each for name, each in cross.items())
        return np.asarray(total @ (found.inverse @ linearization.residual), dtype=np.float64)

    @threadpool_limits.wrap(1)  # type: ignore[untyped-decorator]
    def drift_among(self, counts: Vector, measured: Vector, at_s: Vector) -> Vector:
        """How much slower than usual sums (M, P), measured (M,) at times (M,), were by the others of them, logarithms.

        By whatever share of all, and by drifts around that as strong as the process
        knows them (section 5.4.2 of the source: left out one by one).
        """
        expected = self.predict(counts)
        units = self._posterior.prior.unit / expected
        known = drifts(at_s, units, around_mean=False)
        total = _ANY_SHARE + sum(self.variances[name] * each for name, each in known.items())
        total = total + np.diag(self.noise**2 + LEAST_NOISE**2 + (self.spread(counts) / expected) ** 2)
        inverse, residual = np.linalg.inv(total), np.log(measured / expected)
        return np.asarray(residual - (inverse @ residual) / np.diag(inverse), dtype=np.float64)

    @threadpool_limits.wrap(1)  # type: ignore[untyped-decorator]
    def log_evidence(self) -> float:
        """How likely the values were before they were measured, with strengths as likely as these: a logarithm.

        By Laplace's approximation (section 5.4.1 of the source), less a constant.
        """
        found = self._posterior
        linearization = Linearization.around(found.deviations, found.prior, self.observations)
        (_, precision), misfit = (
            np.linalg.slogdet(found.inverse),
            linearization.residual @ found.inverse @ linearization.residual,
        )
        return float(precision - misfit) / 2 + log_prior(self.variances)

    @threadpool_limits.wrap(1)  # type: ignore[untyped-decorator]
    def spread(self, counts: Vector) -> Vector:
        """The posterior standard deviation (M,) of sums (M, P), in the unit of values.

        Without noise, but with how far the device may have been from its usual
        speed in all the time that the values were measured in.
        """
        found = self._posterior
        values, shares = found.prior.see(counts, found.deviations)
        seen = shares @ found.covariance
        cross = seen @ found.shares.T
        variance = np.einsum("ij,ij->i", seen, shares) - np.einsum("ij,ij->i", cross @ found.inverse, cross)
        level = drift_variance(self._mean_drift, found.prior.unit / values)
        deviation: Vector = values * np.sqrt(np.maximum(variance, 1e-12) + level)
        return deviation

    @threadpool_limits.wrap(1)  # type: ignore[untyped-decorator]
    def select_most_uncertain(self, counts: Vector, number: int) -> list[int]:
        """Rows of sums (M, P) to measure next, one after the other the least certain once those before are measured."""
        found = self._posterior
        _, shares = found.prior.see(counts, found.deviations)
        seen = shares @ found.covariance
        cross = seen @ found.shares.T
        covariance = seen @ shares.T - cross @ found.inverse @ cross.T
        rows: list[int] = []
        for _ in range(min(number, len(counts))):
            variance = np.diag(covariance).copy()
            variance[rows] = -np.inf
            row = int(variance.argmax())
            told = covariance[:, row]
            covariance = covariance - np.outer(told, told) / (variance[row] + self.noise**2 + LEAST_NOISE**2)
            rows.append(row)
        return rows


@dataclass(frozen=True, eq=False)
class _Posterior:
    """The mean of the deviations (D,), and what their covariance is made from.

    ``covariance`` (D, D) is that before measuring, ``shares`` (N, D) are of the
    values, ``inverse`` (N, N) is of the covariance of these.
    """

    prior: Prior
    covariance: Vector
    shares: Vector
    inverse: Vector
    deviations: Vector

    @classmethod
    def of(
        cls,
        prior: Prior,
        covariance: Vector,
        linearization: Linearization,
        observations: Observations,
        variances: Mapping[str, float],
    ) -> _Posterior:
        cross = covariance @ linearization.shares.T
        total = linearization.shares @ cross + np.diag(noise_of(variances, observations.weights))
        if any(variances[name] > 0 for name in DRIFTS):
            shared = drifts(observations.at_s, prior.unit / linearization.expected)
            total += sum(variances[name] * drift for name, drift in shared.items())
        inverse = np.asarray(np.linalg.inv(total), dtype=np.float64)
        mean = cross @ (inverse @ linearization.residual)
        if (mean < prior.least - _HOLD_TOLERANCE).any():
            mean = _held(mean, covariance - cross @ inverse @ cross.T, prior.least)
        return cls(prior, covariance, linearization.shares, inverse, np.maximum(mean, prior.least))


def _held(free: Vector, spread: Vector, least: Vector) -> Vector:
    """The mean (D,) where nothing is below ``least``, given the mean without that and the covariance.

    Parts that would cost less than nothing are held at nothing, which moves
    those that were measured together with them.
    """
    mean, held = free, np.zeros(len(free), dtype=bool)
    for _ in range(_MOST_HOLDS):
        low = mean < least - _HOLD_TOLERANCE
        if not low.any():
            break
        held |= low
        block = spread[np.ix_(held, held)] + _HOLD_NOISE * np.eye(int(held.sum()))
        mean = free + spread[:, held] @ np.linalg.solve(block, least[held] - free[held])
    return mean


def fit_part_process(basis: PartBasis, counts: Vector, values: Vector, at_s: Vector | None = None) -> PartProcess:
    """The process given values (N,) of sums (N, P), and when each was measured; of one moment, no drift is known.

    With one thread: matrices are small, several threads that wait for each
    other on busy cores took 40 times as long, and their number changes bits.
    Raises UsageError for values that are not above zero, and times that are none.
    """
    times = np.zeros(len(values)) if at_s is None else at_s
    if not (len(values) and (values > 0).all() and np.isfinite(values).all() and np.isfinite(times).all()):
        raise UsageError("at least one value is needed to fit, all above 0 and finite, and finite times; measure again")
    observations = Observations(counts, values, times, np.ones(len(values)))
    with threadpool_limits(1):
        return _fit(basis, observations, drifting=bool(np.ptp(times)))


def _fit(basis: PartBasis, observations: Observations, *, drifting: bool) -> PartProcess:
    prior = Prior.of(basis, observations)
    variances = {name: guess(name) for name in [*basis.terms, *(DRIFTS if drifting else ()), "noise"]}
    absent = {name: 0.0 for name in DRIFTS if not drifting}
    deviations = np.zeros(len(prior.least))
    chosen = np.unique(np.linspace(0, len(observations.values) - 1, _MOST_FOR_STRENGTHS).astype(int))
    for _ in range(_ROUNDS):
        linearization = Linearization.around(deviations, prior, observations)
        seen = linearization.of(chosen)
        drift = drifts(observations.at_s[chosen], prior.unit / seen.expected) if drifting else {}
        terms = {**seen.terms(prior), **drift}
        variances = estimate_variances(terms, seen.residual, observations.weights[chosen], variances)
        found = _Posterior.of(prior, prior.covariance(variances), linearization, observations, {**variances, **absent})
        weights = _weights(found.inverse, linearization.residual, observations.weights, variances["noise"])
        observations = replace(observations, weights=weights)
        deviations = found.deviations
    return PartProcess(basis, observations, {**variances, **absent})


def _weights(inverse: Vector, residual: Vector, weights: Vector, noise: float) -> Vector:
    """How much each value (N,) is to count: less if far from what all others predict."""
    error = (inverse @ residual) / np.diag(inverse)
    expected = 1 / np.diag(inverse) - noise * (1 / weights - 1)  # its variance at a weight of one
    return np.asarray(np.minimum(1.0, USUAL**2 * expected / np.maximum(error**2, _LEAST_SQUARE)), dtype=np.float64)
