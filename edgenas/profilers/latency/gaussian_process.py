"""A Gaussian process over the costs of parts, of which only sums are measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # has no type hints

from edgenas.costs import Vector
from edgenas.errors import UsageError
from edgenas.profilers.latency.curve import Curve
from edgenas.profilers.latency.drift import (
    ADDED,
    DRIFTS,
    PROBE,
    RELATIVE,
    Moments,
    drift_covariances,
    drift_variance,
    mean_drift_variances,
)
from edgenas.profilers.latency.prior import (
    MIN_NOISE,
    OUTLIER_DEVIATIONS,
    Linearization,
    Observations,
    PartBasis,
    Prior,
)
from edgenas.profilers.latency.variance_components import (
    estimate_variances,
    initial_variance,
    log_prior,
    noise_variance,
)

_ITERATIONS = 4  # of reweighting
_MIN_SQUARED_ERROR = 1e-12  # a single value has an error of zero
_MAX_STEPS, _STEP_TOLERANCE = 8, 1e-5  # of Laplace's approximation, in deviations
_MAX_BOUND_STEPS, _BOUND_NOISE, _BOUND_TOLERANCE = 20, 1e-6, 1e-3
_MAX_FOR_VARIANCES = 400  # values that variances are estimated from; more add time, not knowledge


@dataclass(frozen=True, eq=False)
class PartProcess:
    """The posterior of the costs of parts.

    The cost of part p is ``base[p] * (1 + deviation[p])``. The deviations are jointly normal with mean zero, and
    similar parts deviate alike. A measured value is the overhead plus its parts' costs, times
    exp(curve + drift + noise): the curve is a smooth function of that sum, and drift is a slow process in time that
    all values share, relative or added, as on a machine that others use as well, and a power of the speed probe's
    time. Sums of normals are normal, so the posterior of the costs is exact (C. E. Rasmussen, C. K. I. Williams,
    Gaussian Processes for Machine Learning, 2006, chapters 2 and 5) except for the logarithm, which is linearized at
    the posterior mean (Laplace's approximation, section 3.4 there). The mean is a table of costs that are added up.
    Variance components maximize the marginal likelihood; outliers lose weight.

    Attributes:
        basis: Everything known before measuring.
        observations: The measured values.
        variances: The variance of each term by name, relative to base costs.
    """

    basis: PartBasis
    observations: Observations
    variances: Mapping[str, float]

    @cached_property
    @threadpool_limits.wrap(1)  # type: ignore[untyped-decorator]
    def _posterior(self) -> _Posterior:
        prior = Prior.fit(self.basis, self.observations)
        covariance = prior.covariance(self.variances)
        deviations = np.zeros(len(covariance))
        for _ in range(_MAX_STEPS):
            linearization = Linearization.at(deviations, prior, self.observations)
            posterior = _Posterior.condition(prior, covariance, linearization, self.observations, self.variances)
            step, deviations = np.abs(posterior.deviations - deviations).max(), posterior.deviations
            if step < _STEP_TOLERANCE:
                break
        return posterior

    @cached_property
    def costs(self) -> Vector:
        """The posterior mean of each part's cost (P,), never negative."""
        base = self._posterior.prior.base
        costs: Vector = base * (1 + self._posterior.deviations[: len(base)])
        return costs

    @cached_property
    def overhead(self) -> float:
        """The posterior mean of the cost of a value besides its parts, never negative."""
        prior = self._posterior.prior
        return float(prior.overhead + prior.unit * self._posterior.deviations[len(prior.base)])

    @cached_property
    def curve(self) -> Curve:
        """The posterior mean of the factor on sums."""
        prior = self._posterior.prior
        return Curve(prior.knots, self._posterior.deviations[len(prior.base) + 1 :])

    def predict(self, counts: Vector) -> Vector:
        """Return the values (M,) of sums (M, P) at the posterior mean."""
        return self.curve(self.overhead + counts @ self.costs)

    @property
    def term_names(self) -> list[str]:
        """The names of the ``variances``."""
        return [*self.basis.term_names, *DRIFTS, "noise"]

    @property
    def noise_std(self) -> float:
        """The relative standard deviation of one measured value without drift."""
        return float(np.sqrt(self.variances["noise"]))

    @threadpool_limits.wrap(1)  # type: ignore[untyped-decorator]
    def predict_std(self, counts: Vector) -> Vector:
        """Return the posterior standard deviation (M,) of sums (M, P), in the unit of values.

        Noise is not included. The uncertainty of the mean drift over all measured values is.
        """
        posterior = self._posterior
        values, jacobian = posterior.prior.values_and_jacobian(counts, posterior.deviations)
        projected = jacobian @ posterior.covariance
        cross = projected @ posterior.jacobian.T
        variance = np.einsum("ij,ij->i", projected, jacobian) - np.einsum("ij,ij->i", cross @ posterior.inverse, cross)
        mean_drift = drift_variance(self._mean_drift_variances, posterior.prior.unit / values)
        std: Vector = values * np.sqrt(np.maximum(variance, 1e-12) + mean_drift)
        return std

    @cached_property
    def _mean_drift_variances(self) -> dict[str, float]:
        means = mean_drift_variances(self.observations.moments)
        return {name: self.variances[name] * mean for name, mean in means.items()}

    @cached_property
    @threadpool_limits.wrap(1)  # type: ignore[untyped-decorator]
    def probe_exponent(self) -> tuple[float, float]:
        """The mean and the variance of the power of the speed probe's time by which values grow; 0 without a probe."""
        posterior, moments, variance = self._posterior, self.observations.moments, self.variances[PROBE]
        linearization = Linearization.at(posterior.deviations, posterior.prior, self.observations)
        weighed = posterior.inverse @ moments.slowness
        shown = variance * float(weighed @ moments.slowness)
        return variance * float(weighed @ linearization.response), variance * (1 - shown)

    def drift_std(self, values: Vector) -> Vector:
        """Return the relative standard deviation (M,) of values (M,) by drift and the CPU's speed at one moment."""
        moments, (exponent, variance) = self.observations.moments, self.probe_exponent
        speed = float(np.square(moments.slowness).mean()) * (exponent**2 + variance)
        return np.asarray(np.sqrt(drift_variance(self.variances, self._posterior.prior.unit / values) + speed))

    @threadpool_limits.wrap(1)  # type: ignore[untyped-decorator]
    def log_marginal_likelihood(self) -> float:
        """Return the logarithm of the density of the values and the variances before measuring, up to a constant.

        By Laplace's approximation (Rasmussen and Williams, section 5.4.1).
        """
        posterior = self._posterior
        linearization = Linearization.at(posterior.deviations, posterior.prior, self.observations)
        _, log_determinant = np.linalg.slogdet(posterior.inverse)
        misfit = linearization.response @ posterior.inverse @ linearization.response
        return float(log_determinant - misfit) / 2 + log_prior(self.variances)

    @threadpool_limits.wrap(1)  # type: ignore[untyped-decorator]
    def select_most_uncertain(self, counts: Vector, number: int) -> list[int]:
        """Return rows of sums (M, P) to measure next: each the most uncertain, given that those before are measured."""
        posterior = self._posterior
        _, jacobian = posterior.prior.values_and_jacobian(counts, posterior.deviations)
        projected = jacobian @ posterior.covariance
        cross = projected @ posterior.jacobian.T
        covariance = projected @ jacobian.T - cross @ posterior.inverse @ cross.T
        rows: list[int] = []
        for _ in range(min(number, len(counts))):
            variance = np.diag(covariance).copy()
            variance[rows] = -np.inf
            row = int(variance.argmax())
            column = covariance[:, row]
            covariance = covariance - np.outer(column, column) / (variance[row] + self.noise_std**2 + MIN_NOISE**2)
            rows.append(row)
        return rows


@dataclass(frozen=True, eq=False)
class _Posterior:
    """The posterior mean of the deviations (D,), and the matrices of their covariance.

    ``covariance`` (D, D) is the prior one, ``jacobian`` (N, D) is of the logarithms of the values, and ``inverse``
    (N, N) is of their covariance.
    """

    prior: Prior
    covariance: Vector
    jacobian: Vector
    inverse: Vector
    deviations: Vector

    @classmethod
    def condition(
        cls,
        prior: Prior,
        covariance: Vector,
        linearization: Linearization,
        observations: Observations,
        variances: Mapping[str, float],
    ) -> _Posterior:
        """Condition the prior on the linearized values."""
        cross = covariance @ linearization.jacobian.T
        total = linearization.jacobian @ cross + np.diag(noise_variance(variances, observations.weights))
        if any(variances[name] > 0 for name in DRIFTS):
            drifts = drift_covariances(observations.moments, prior.unit / linearization.expected)
            total += sum(variances[name] * drift for name, drift in drifts.items())
        inverse = np.asarray(np.linalg.inv(total), dtype=np.float64)
        mean = cross @ (inverse @ linearization.response)
        if (mean < prior.lower_bounds - _BOUND_TOLERANCE).any():
            mean = _enforce_lower_bounds(mean, covariance - cross @ inverse @ cross.T, prior.lower_bounds)
        return cls(prior, covariance, linearization.jacobian, inverse, np.maximum(mean, prior.lower_bounds))


def _enforce_lower_bounds(free_mean: Vector, covariance: Vector, lower_bounds: Vector) -> Vector:
    """Condition a mean (D,) on the deviations below their bounds being at them, until none is below.

    Parts that would cost less than nothing cost nothing, which moves those measured together with them.
    """
    mean, bound = free_mean, np.zeros(len(free_mean), dtype=bool)
    for _ in range(_MAX_BOUND_STEPS):
        below = mean < lower_bounds - _BOUND_TOLERANCE
        if not below.any():
            break
        bound |= below
        block = covariance[np.ix_(bound, bound)] + _BOUND_NOISE * np.eye(int(bound.sum()))
        mean = free_mean + covariance[:, bound] @ np.linalg.solve(block, lower_bounds[bound] - free_mean[bound])
    return mean


def fit_part_process(basis: PartBasis, counts: Vector, values: Vector, moments: Moments | None = None) -> PartProcess:
    """Fit a process to measured values of sums.

    One thread is used: the matrices are small, several threads that wait for each other on busy cores took 40 times
    as long, and their number changes bits.

    Args:
        basis: Everything known before measuring.
        counts: How often each part occurs in each value (N, P).
        values: The values (N,).
        moments: When each was measured (N,). Where times are equal, no drift over time is fitted.

    Raises:
        UsageError: Without values, for values that are not above zero, and for times that are not finite.
    """
    moments = Moments.at(np.zeros(len(values))) if moments is None else moments
    if not (len(values) and (values > 0).all() and np.isfinite(values).all() and np.isfinite(moments.at_s).all()):
        raise UsageError("at least one value is needed to fit, all above 0 and finite, and finite times; measure again")
    with threadpool_limits(1):
        return _fit_reweighted(basis, Observations(counts, values, moments, np.ones(len(values))))


def _fit_reweighted(basis: PartBasis, observations: Observations) -> PartProcess:
    """Estimate variances and sample weights in turn."""
    prior, moments = Prior.fit(basis, observations), observations.moments
    shown = {
        PROBE: np.ptp(moments.slowness),
        RELATIVE: np.ptp(moments.at_s),
        ADDED: np.ptp(moments.at_s),
    }
    drifts = [name for name in DRIFTS if shown[name]]
    variances = {name: initial_variance(name) for name in [*basis.term_names, *drifts, "noise"]}
    absent = {name: 0.0 for name in DRIFTS if name not in drifts}
    deviations = np.zeros(len(prior.lower_bounds))
    rows = np.unique(np.linspace(0, len(observations.values) - 1, _MAX_FOR_VARIANCES).astype(int))
    for _ in range(_ITERATIONS):
        linearization = Linearization.at(deviations, prior, observations)
        sample = linearization.select_rows(rows)
        covariances = drift_covariances(moments[rows], prior.unit / sample.expected)
        terms = {**sample.term_covariances(prior), **{name: covariances[name] for name in drifts}}
        variances = estimate_variances(terms, sample.response, observations.weights[rows], variances)
        covariance = prior.covariance(variances)
        posterior = _Posterior.condition(prior, covariance, linearization, observations, {**variances, **absent})
        weights = _weigh_samples(posterior.inverse, linearization.response, observations.weights, variances["noise"])
        observations = replace(observations, weights=weights)
        deviations = posterior.deviations
    return PartProcess(basis, observations, {**variances, **absent})


def _weigh_samples(inverse: Vector, response: Vector, weights: Vector, noise: float) -> Vector:
    """Return new sample weights (N,), less than 1 for values that are far from their leave-one-out predictions."""
    error = (inverse @ response) / np.diag(inverse)
    expected = 1 / np.diag(inverse) - noise * (1 / weights - 1)  # its variance at a weight of one
    squared_limit = OUTLIER_DEVIATIONS**2 * expected
    return np.asarray(np.minimum(1.0, squared_limit / np.maximum(error**2, _MIN_SQUARED_ERROR)), dtype=np.float64)
