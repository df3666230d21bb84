"""Weights that are not negative: what costs are made of adds up, and never saves."""

from __future__ import annotations

import numpy as np

from edgenas.costs import Vector


def fit_non_negative(
    columns: Vector, values: Vector, trust: Vector | None = None, doubt: Vector | None = None
) -> Vector:
    """Weights >= 0 of ``columns`` (N, K) that reach ``values`` (N,) with the least squared relative error.

    ``trust`` (N,) says how much each squared error counts, ``doubt`` (K,) how
    much each weight, times that and squared, counts beside them.
    """
    from scipy.optimize import nnls

    root = np.ones(len(values)) if trust is None else np.sqrt(trust)
    scale = np.maximum(np.abs(columns).max(axis=0), 1e-12)
    wanted = columns / scale * (root / values)[:, None]
    if doubt is not None:
        wanted, root = np.vstack([wanted, np.diag(doubt / scale)]), np.append(root, np.zeros(len(doubt)))
    weights: Vector = nnls(wanted, root)[0] / scale
    return weights
