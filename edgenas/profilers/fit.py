"""From latencies of whole subnets to a cost for each part.

A latency is the runtime's overhead plus the costs of the parts. A part's cost
is what its shape suggests (non-negative weights on work and traffic, shared by
all parts of an operator) times one plus a deviation of its own, drawn towards
zero as strongly as cross-validation advises. Errors are relative, as users
judge them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgenas.costs import Genes, Vector
from edgenas.space import Part, SearchSpace

_SHRINKAGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
_FOLDS = 5


def fit_part_costs(space: SearchSpace, genes: Genes, latency_ms: Vector) -> tuple[float, Vector]:
    """The overhead and the cost (P,) in ms of each of ``space.distinct_parts``, from subnets' latencies (N,)."""
    counts = _counts(space, genes)
    features = _features(space)
    fold = np.random.default_rng(0).permutation(len(genes)) % _FOLDS
    errors = np.zeros(len(_SHRINKAGES))
    for number in range(_FOLDS):
        seen, held = fold != number, fold == number
        overhead, base = _fit_base(counts[seen], features, latency_ms[seen])
        for index, shrinkage in enumerate(_SHRINKAGES):
            costs = _deviate(counts[seen], overhead, base, latency_ms[seen], shrinkage)
            errors[index] += np.abs((overhead + counts[held] @ costs) / latency_ms[held] - 1).sum()
    overhead, base = _fit_base(counts, features, latency_ms)
    return overhead, _deviate(counts, overhead, base, latency_ms, _SHRINKAGES[int(errors.argmin())])


def fit_non_negative(columns: Vector, values: Vector) -> Vector:
    """Weights >= 0 of ``columns`` (N, K) that reach ``values`` (N,) with the least squared relative error."""
    from scipy.optimize import nnls

    scale = np.maximum(np.abs(columns).max(axis=0), 1e-12)
    weights: Vector = nnls(columns / scale / values[:, None], np.ones(len(values)))[0] / scale
    return weights


def _fit_base(counts: Vector, features: Vector, latency_ms: Vector) -> tuple[float, Vector]:
    weights = fit_non_negative(np.column_stack([np.ones(len(counts)), counts @ features]), latency_ms)
    return float(weights[0]), features @ weights[1:]


def _deviate(counts: Vector, overhead: float, base: Vector, latency_ms: Vector, shrinkage: float) -> Vector:
    """Base costs with each part's own relative deviation, by ridge regression on the relative residuals."""
    share = counts * base / latency_ms[:, None]
    residual = 1 - (overhead + counts @ base) / latency_ms
    deviation = np.linalg.solve(share.T @ share + shrinkage * np.eye(len(base)), share.T @ residual)
    costs: Vector = base * np.maximum(1 + deviation, 0)
    return costs


def _counts(space: SearchSpace, genes: Genes) -> Vector:
    """How often each architecture has each of ``space.distinct_parts``, shape (N, P)."""
    counts = np.zeros((len(genes), len(space.distinct_parts) + 1))
    rows = np.arange(len(genes))
    for indices in space.part_indices(genes):
        counts[rows, indices] += 1  # -1, for none, counts into the last column
    return counts[:, :-1]


def _features(space: SearchSpace) -> Vector:
    """What could drive each part's cost, shape (P, F)."""
    described = [_FEATURES[part.operator](part) for part in space.distinct_parts]
    names = sorted({name for features in described for name in features})
    return np.array([[features.get(name, 0.0) for name in names] for features in described])


def _dense_features(part: Part) -> dict[str, float]:
    work = part.out_size**2 * part.out_channels * part.in_channels * part.kernel**2
    traffic = part.in_size**2 * part.in_channels + part.out_size**2 * part.out_channels
    return {f"{part.operator} calls": 1, f"{part.operator} work": work, f"{part.operator} traffic": traffic}


def _mbconv_features(part: Part) -> dict[str, float]:
    before, after, mid = part.in_size**2, part.out_size**2, part.mid_channels
    squeezed = part.se_channels > 0
    return {
        "mbconv calls": 1,
        "expand work": before * part.in_channels * mid * part.expand,
        f"depthwise {part.kernel} work": after * mid * part.kernel**2,
        f"depthwise {part.kernel} channels": mid,
        "project work": after * mid * part.out_channels,
        "before traffic": before * mid * part.expand,
        "after traffic": after * mid,
        f"{part.activation} traffic": (before * part.expand + after) * mid,
        "gate calls": squeezed,
        "gate work": part.se_channels * mid,
        "gate traffic": squeezed * after * mid,
        "weights": mid * (part.in_channels + part.out_channels),
        "shortcut calls": part.shortcut,
        "out traffic": after * part.out_channels,
    }


def _bottleneck_features(part: Part) -> dict[str, float]:
    before, after, mid = part.in_size**2, part.out_size**2, part.mid_channels
    return {
        "bottleneck calls": 1,
        "reduce work": before * part.in_channels * mid,
        "filter work": after * mid * mid * part.kernel**2,
        "project work": after * mid * part.out_channels,
        "projected calls": part.projected,
        "projected work": part.projected * after * part.in_channels * part.out_channels,
        "in traffic": before * part.in_channels,
        "middle traffic": (before + after) * mid,
        "out traffic": after * part.out_channels,
        "weights": mid * (part.in_channels + part.out_channels + mid * part.kernel**2),
    }


_FEATURES: dict[str, Callable[[Part], dict[str, float]]] = {
    "conv": _dense_features,
    "pool": _dense_features,
    "max_pool": _dense_features,
    "linear": _dense_features,
    "mbconv": _mbconv_features,
    "bottleneck": _bottleneck_features,
}
