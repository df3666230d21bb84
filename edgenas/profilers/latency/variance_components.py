"""Variance components of a Gaussian process by marginal likelihood with weak priors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgenas.costs import Vector
from edgenas.profilers.latency.prior import MIN_NOISE

# Prior medians of the variances; a factor of 7 is one standard deviation.
_PRIOR_MEDIANS = {"overhead": 1e-4, "curve": 1e-3, "drift": 3e-4, "probe": 0.25, "noise": 1e-3}
_DEVIATION_MEDIAN, _LOG_DEVIATION = 6e-3, 2.0
_MIN_VARIANCE, _MAX_VARIANCE = 1e-7, 1.0
# Base costs are fitted to the same values, and a device is refused that drifts by more than a tenth, which is both
# drifts together. So terms that move all values at once are small. Larger ones, for values that one of these terms
# explains, would let the other move all costs.
_MAX_VARIANCES = {"all": 0.02, "drift": 0.005}


def initial_variance(name: str) -> float:
    """Return the prior median of a term's variance."""
    return _PRIOR_MEDIANS.get(name.partition(" ")[0], _DEVIATION_MEDIAN)


def log_prior(variances: Mapping[str, float]) -> float:
    """Return the logarithm of the prior density of variances, up to a constant; terms of zero are absent."""
    scores = [
        np.log(variance / initial_variance(name)) / _LOG_DEVIATION for name, variance in variances.items() if variance
    ]
    return -float(np.square(scores).sum()) / 2


def noise_variance(variances: Mapping[str, float], weights: Vector) -> Vector:
    """Return the independent variance (N,) of values with sample weights (N,)."""
    return np.asarray(variances["noise"] / weights + MIN_NOISE**2)


def estimate_variances(
    terms: Mapping[str, Vector], residual: Vector, weights: Vector, start: Mapping[str, float]
) -> dict[str, float]:
    """Return the variances of ``terms`` and of noise that maximize the posterior density given residuals.

    Args:
        terms: The covariance (N, N) by each term at a variance of one.
        residual: Values (N,) of mean zero.
        weights: Their sample weights (N,).
        start: The variances that the optimization (L-BFGS-B) starts from.
    """
    from scipy.linalg import cho_factor, cho_solve
    from scipy.optimize import minimize

    names = [*terms, "noise"]
    prior_logs = np.log([initial_variance(name) for name in names])
    noise = 1 / weights

    def loss_and_gradient(logs: Vector) -> tuple[float, Vector]:
        variances = dict(zip(names, np.exp(logs).tolist(), strict=True))
        total = np.diag(noise_variance(variances, weights))
        for name, term in terms.items():
            total += variances[name] * term
        factor = cho_factor(total, lower=True, check_finite=False)
        inverse = cho_solve(factor, np.eye(len(residual)), check_finite=False)
        solved = inverse @ residual
        slopes = [
            variances[name] * (np.vdot(inverse, term) - solved @ term @ solved) / 2 for name, term in terms.items()
        ]
        slopes.append(variances["noise"] * float(np.diag(inverse) @ noise - solved**2 @ noise) / 2)
        scores = (logs - prior_logs) / _LOG_DEVIATION
        value = residual @ solved / 2 + np.log(np.diag(factor[0])).sum() + scores @ scores / 2
        return float(value), np.array(slopes) + scores / _LOG_DEVIATION

    start_logs = np.log([start[name] for name in names])
    bounds = [
        (np.log(_MIN_VARIANCE), np.log(_MAX_VARIANCES.get(name.partition(" ")[0], _MAX_VARIANCE))) for name in names
    ]
    optimum = minimize(
        loss_and_gradient, start_logs, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60}
    )
    return dict(zip(names, np.exp(optimum.x).tolist(), strict=True))
