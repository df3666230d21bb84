"""Costs of the parts of a space, fitted to the latencies of whole subnets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgenas.costs import Genes, Vector
from edgenas.profilers.latency.drift import Moments
from edgenas.profilers.latency.features import part_features, part_similarities, plain_features
from edgenas.profilers.latency.gaussian_process import PartProcess, fit_part_process
from edgenas.profilers.latency.prior import Features, Observations, PartBasis
from edgenas.space import SearchSpace

# The share of a latency that a plain feature is likely to explain if costs on a source target are known.
_PLAIN_SHARE = 0.03
# The transfer weights that are tried.
_TRANSFER_WEIGHTS = (0.0, 0.25, 0.5, 1.0)


@dataclass(frozen=True, eq=False)
class PartCosts:
    """The overhead of a whole network and the costs (P,) of ``space.distinct_parts``, milliseconds."""

    overhead_ms: float
    part_ms: Vector


def fit_part_costs(
    space: SearchSpace,
    genes: Genes,
    latency_ms: Vector,
    moments: Moments | None = None,
    source_costs: Sequence[PartCosts] = (),
) -> PartProcess:
    """Fit the costs of ``space.distinct_parts`` to latencies of whole subnets.

    Args:
        space: The search space.
        genes: The measured subnets (N, G).
        latency_ms: Their latencies (N,), ms.
        moments: When each was measured (N,); None allows for no drift.
        source_costs: The costs of the same parts on other targets.
    """
    return fit_with_transfer(part_basis(space, source_costs), part_count_matrix(space, genes), latency_ms, moments)


def fit_with_transfer(basis: PartBasis, counts: Vector, values: Vector, moments: Moments | None = None) -> PartProcess:
    """Fit as ``fit_part_process`` does, with a transfer weight that is estimated from the values (N,).

    Costs on another runtime can mislead, and a few values cannot tell. So the transfer weight is the mean of some,
    rounded to a hundredth, each weighted by its marginal likelihood (after Bayesian model averaging, J. A. Hoeting
    et al., Statistical Science 14, 1999, which would average the predictions).
    """
    if basis.source_features is None:
        return fit_part_process(basis, counts, values, moments)

    def fit_at(transfer_weight: float) -> PartProcess:
        return fit_part_process(replace(basis, transfer_weight=transfer_weight), counts, values, moments)

    fits = {transfer_weight: fit_at(transfer_weight) for transfer_weight in _TRANSFER_WEIGHTS}
    log_likelihoods = np.array([process.log_marginal_likelihood() for process in fits.values()])
    likelihoods = np.exp(log_likelihoods - log_likelihoods.max())
    mean = round(float(likelihoods @ np.array(_TRANSFER_WEIGHTS) / likelihoods.sum()), 2)
    return fits.get(mean) or fit_at(mean)


def part_process_to_dict(process: PartProcess) -> dict[str, Any]:
    """Return the state of a process as plain data, without its space, its genes and its source costs."""
    observations = process.observations
    return {
        "latency_ms": observations.values.tolist(),
        "at_s": observations.moments.at_s.tolist(),
        "probe_ms": [None if np.isnan(each) else each for each in observations.moments.probe_ms.tolist()],
        "weights": observations.weights.tolist(),
        "variances": dict(process.variances),
        "transfer_weight": process.basis.transfer_weight,
    }


def part_process_from_dict(
    space: SearchSpace, genes: Genes, state: Mapping[str, Any], source_costs: Sequence[PartCosts] = ()
) -> PartProcess:
    """Return the process of a ``part_process_to_dict``."""
    latency_ms, at_s, probe_ms, weights = (
        np.array(state[name], dtype=np.float64) for name in ("latency_ms", "at_s", "probe_ms", "weights")
    )
    observations = Observations(part_count_matrix(space, genes), latency_ms, Moments(at_s, probe_ms), weights)
    basis = replace(part_basis(space, source_costs), transfer_weight=state["transfer_weight"])
    return PartProcess(basis, observations, state["variances"])


def part_count_matrix(space: SearchSpace, genes: Genes) -> Vector:
    """Return how often each architecture has each of ``space.distinct_parts`` (N, P)."""
    counts = np.zeros((len(genes), len(space.distinct_parts) + 1))
    rows = np.arange(len(genes))
    for indices in space.part_indices(genes):
        counts[rows, indices] += 1  # -1, for no part, counts into the last column
    return counts[:, :-1]


def part_basis(space: SearchSpace, source_costs: Sequence[PartCosts] = ()) -> PartBasis:
    """Return everything known of ``space.distinct_parts`` before measuring, with their costs on other targets."""
    parts = space.distinct_parts
    plain = Features.with_overhead(plain_features(parts))
    transferred = source_features(plain, source_costs) if source_costs else None
    return PartBasis(plain, part_features(parts), part_similarities(parts), transferred)


def source_features(plain: Features, source_costs: Sequence[PartCosts]) -> Features:
    """Return the costs on other targets as features, and plain features with a penalty."""
    return Features(
        np.column_stack([*(costs.part_ms for costs in source_costs), plain.of_parts]),
        np.array([*(costs.overhead_ms for costs in source_costs), *plain.overheads]),
        np.array([*[np.inf] * len(source_costs), *[_PLAIN_SHARE] * len(plain.overheads)]),
    )
