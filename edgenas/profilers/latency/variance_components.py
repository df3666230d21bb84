"""How strong each term of a Gaussian process is, by marginal likelihood with weak priors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgenas.costs import Vector
from edgenas.profilers.latency.prior import LEAST_NOISE

# Guesses of the variances; a factor of 7 off is one standard deviation off.
_GUESSES = {"overhead": 1e-4, "curve": 1e-3, "drift": 3e-4, "noise": 1e-3}
_DEVIATION_GUESS, _SPREAD = 6e-3, 2.0
_LEAST, _MOST = 1e-7, 20.0
# Base costs are fitted to the same values, and a device is refused that drifts by more than a tenth, which is all four
# drifts together: what moves all values at once is little, or values that one of these terms explains would let the
# other move all costs.
_MOST_OF = {"all": 0.02, "drift": 0.0025}


def guess(name: str) -> float:
    """The variance of a term before anything was measured."""
    return _GUESSES.get(name.partition(" ")[0], _DEVIATION_GUESS)


def log_prior(variances: Mapping[str, float]) -> float:
    """How likely these variances were before anything was measured, a logarithm, less a constant; absent ones are 0."""
    away = [np.log(strength / guess(name)) / _SPREAD for name, strength in variances.items() if strength]
    return -float(np.square(away).sum()) / 2


def noise_of(variances: Mapping[str, float], weights: Vector) -> Vector:
    """The variance (N,) of what belongs to single values alone; those without weight have more."""
    return np.asarray(variances["noise"] / weights + LEAST_NOISE**2)


def estimate_variances(
    terms: Mapping[str, Vector], residual: Vector, weights: Vector, start: Mapping[str, float]
) -> dict[str, float]:
    """The variances of ``terms`` (N, N) and of noise that make ``residual`` (N,) most likely, from ``start`` on."""
    from scipy.linalg import cho_factor, cho_solve
    from scipy.optimize import minimize

    names = [*terms, "noise"]
    guesses = np.log([guess(name) for name in names])
    noise = 1 / weights

    def loss(logs: Vector) -> tuple[float, Vector]:
        variances = dict(zip(names, np.exp(logs).tolist(), strict=True))
        total = np.diag(noise_of(variances, weights))
        for name, term in terms.items():
            total += variances[name] * term
        factor = cho_factor(total, lower=True, check_finite=False)
        inverse = cho_solve(factor, np.eye(len(residual)), check_finite=False)
        pull = inverse @ residual
        slopes = [variances[name] * (np.vdot(inverse, term) - pull @ term @ pull) / 2 for name, term in terms.items()]
        slopes.append(variances["noise"] * float(np.diag(inverse) @ noise - pull**2 @ noise) / 2)
        away = (logs - guesses) / _SPREAD
        value = residual @ pull / 2 + np.log(np.diag(factor[0])).sum() + away @ away / 2
        return float(value), np.array(slopes) + away / _SPREAD

    first = np.log([start[name] for name in names])
    bounds = [(np.log(_LEAST), np.log(_MOST_OF.get(name.partition(" ")[0], _MOST))) for name in names]
    found = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60})
    return dict(zip(names, np.exp(found.x).tolist(), strict=True))
