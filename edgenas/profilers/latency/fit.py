"""From latencies of whole subnets to a cost for each part of a space.

Features of a part's operators say what its cost is likely made of, alike parts
are alike in what the features miss, and what all of it explains is inferred at
once by a Gaussian process that is seen through sums (see ``part_process``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgenas.costs import Genes, Vector
from edgenas.profilers.latency.features import part_features, plain_features
from edgenas.profilers.latency.gaussian_process import PartProcess, fit_part_process
from edgenas.profilers.latency.prior import Features, Observations, PartBasis
from edgenas.profilers.latency.similarity import part_similarities
from edgenas.space import SearchSpace

# Which share of a latency a plain feature is likely to make up where another target's costs are known.
_OWN_SHARE = 0.03
# How far base costs may lean on another target's.
_LEANS = (0.0, 0.25, 0.5, 1.0)


@dataclass(frozen=True, eq=False)
class PartCosts:
    """What whole networks cost beside their parts, and what ``space.distinct_parts`` cost, (P,), milliseconds."""

    overhead_ms: float
    part_ms: Vector


def fit_parts(
    space: SearchSpace,
    genes: Genes,
    latency_ms: Vector,
    at_s: Vector | None = None,
    others: Sequence[PartCosts] = (),
) -> PartProcess:
    """The costs in ms of ``space.distinct_parts`` from subnets' latencies (N,) and when each was measured (N,).

    ``others``: costs of the same parts on other targets.
    """
    return fit_leaning(basis_of(space, others), count_parts(space, genes), latency_ms, at_s)


def fit_leaning(basis: PartBasis, counts: Vector, values: Vector, at_s: Vector | None = None) -> PartProcess:
    """As ``fit_part_process``, leaning on other targets' costs as far as values (N,) bear that out.

    Another runtime's costs can mislead, and a few values cannot tell: the lean is
    the mean of some, to a hundredth, each weighed by how likely it makes the values
    (after Bayesian model averaging, J. A. Hoeting et al., Statistical Science 14,
    1999, which would average what they predict).
    """
    if basis.others is None:
        return fit_part_process(basis, counts, values, at_s)

    def fitted(transfer_weight: float) -> PartProcess:
        return fit_part_process(replace(basis, transfer_weight=transfer_weight), counts, values, at_s)

    tried = {transfer_weight: fitted(transfer_weight) for transfer_weight in _LEANS}
    observations = np.array([process.log_evidence() for process in tried.values()])
    weights = np.exp(observations - observations.max())
    transfer_weight = round(float(weights @ np.array(_LEANS) / weights.sum()), 2)
    return tried.get(transfer_weight) or fitted(transfer_weight)


def restored_parts(
    space: SearchSpace, genes: Genes, data: Mapping[str, Any], others: Sequence[PartCosts] = ()
) -> PartProcess:
    """The process again, from what ``remembered`` says of it."""
    vectors = (np.array(data[name], dtype=np.float64) for name in ("latency_ms", "at_s", "weights"))
    observations = Observations(count_parts(space, genes), *vectors)
    return PartProcess(
        replace(basis_of(space, others), transfer_weight=data["transfer_weight"]), observations, data["variances"]
    )


def remembered(process: PartProcess) -> dict[str, Any]:
    """What a process needs beside its space, its genes and the other targets' costs, as plain data."""
    observations = process.observations
    return {
        "latency_ms": observations.values.tolist(),
        "at_s": observations.at_s.tolist(),
        "weights": observations.weights.tolist(),
        "variances": dict(process.variances),
        "transfer_weight": process.basis.transfer_weight,
    }


def count_parts(space: SearchSpace, genes: Genes) -> Vector:
    """How often each architecture has each of ``space.distinct_parts``, shape (N, P)."""
    counts = np.zeros((len(genes), len(space.distinct_parts) + 1))
    rows = np.arange(len(genes))
    for indices in space.part_indices(genes):
        counts[rows, indices] += 1  # -1, for none, counts into the last column
    return counts[:, :-1]


def basis_of(space: SearchSpace, others: Sequence[PartCosts] = ()) -> PartBasis:
    """What is known of ``space.distinct_parts`` before measuring, with what they cost on other targets."""
    parts = space.distinct_parts
    plain = Features.with_overhead(np.column_stack([plain_features(parts)]))
    known = with_others(plain, others) if others else None
    return PartBasis(plain, part_features(parts), part_similarities(parts), known)


def with_others(plain: Features, others: Sequence[PartCosts]) -> Features:
    """Other targets' costs, with plain features held back beside them."""
    return Features(
        np.column_stack([*(each.part_ms for each in others), plain.of_parts]),
        np.array([*(each.overhead_ms for each in others), *plain.overheads]),
        np.array([*[np.inf] * len(others), *[_OWN_SHARE] * len(plain.overheads)]),
    )
