"""One number from several objectives, for strategies that know one objective only."""

from __future__ import annotations

import numpy as np

from edgenas.costs import Vector
from edgenas.search.problem import Costs

_SUM = 0.05  # of the weighted sum that is added: without it, equal greatest terms would hide the others
_PENALTY = 10.0  # of a violation of 1 (twice a limit): more than the span of all objectives


def random_weights(objectives: int, rng: np.random.Generator) -> Vector:
    """Return weights (M,) drawn uniformly from those that are not negative and sum to 1."""
    weights: Vector = rng.dirichlet(np.ones(objectives))
    return weights


def weighted_costs(costs: Costs, weights: Vector, ideal: Vector, nadir: Vector) -> Vector:
    """Return the augmented weighted Chebyshev norm (N,) of costs, to minimise, and a penalty for broken limits.

    J. Knowles, ParEGO, IEEE Transactions on Evolutionary Computation 10 (2006) 50: each draw of weights asks for
    another place of the front.

    Args:
        costs: The costs of N architectures.
        weights: The weights of the objectives, (M,).
        ideal: The least value of each objective, (M,), which counts as 0.
        nadir: The value of each objective that counts as 1, (M,).
    """
    scaled = weights * (costs.objectives - ideal) / np.where(nadir > ideal, nadir - ideal, 1.0)
    norm: Vector = scaled.max(axis=1) + _SUM * scaled.sum(axis=1) + _PENALTY * costs.violation
    return norm
