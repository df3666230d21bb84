"""From latencies of whole subnets to a cost for each part of a space.

Features of a part's operators say what its cost is likely made of, alike parts
are alike in what the features miss, and what all of it explains is inferred at
once by a Gaussian process that is seen through sums (see ``part_process``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgenas.costs import Genes, Vector
from edgenas.profilers.part_features import part_features, plain_features
from edgenas.profilers.part_kernel import part_similarities
from edgenas.profilers.part_prior import Evidence, PartBasis
from edgenas.profilers.part_process import PartProcess, fit_part_process
from edgenas.space import SearchSpace

# Which share of a latency a plain feature is likely to make up where another target's costs are known.
_OWN_SHARE = 0.03
_ODDS = 1.0  # of another target to be alike before anything was measured, a logarithm


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

    ``others``: costs of the same parts on other targets. Scaled, they are what a
    cost is before anything was measured, unless left-out subnets are clearly
    predicted better from plain features: another runtime's costs can mislead.
    """
    counts = count_parts(space, genes)
    plain = fit_part_process(_basis(space, ()), counts, latency_ms, at_s)
    return likelier(fit_part_process(_basis(space, others), counts, latency_ms, at_s), plain) if others else plain


def likelier(informed: PartProcess, plain: PartProcess) -> PartProcess:
    """The one that begins with other targets, unless the plain one says of left-out values that it is wrong."""
    return plain if plain.left_out_density() > informed.left_out_density() + _ODDS else informed


def restored_parts(
    space: SearchSpace, genes: Genes, data: Mapping[str, Any], others: Sequence[PartCosts] = ()
) -> PartProcess:
    """The process again, from what ``remembered`` says of it."""
    vectors = (np.array(data[name], dtype=np.float64) for name in ("latency_ms", "at_s", "weights"))
    evidence = Evidence(count_parts(space, genes), *vectors)
    return PartProcess(_basis(space, others if data["begins_with_others"] else ()), evidence, data["strengths"])


def remembered(process: PartProcess) -> dict[str, Any]:
    """What a process needs beside its space, its genes and the other targets' costs, as plain data."""
    evidence = process.evidence
    return {
        "latency_ms": evidence.values.tolist(),
        "at_s": evidence.at_s.tolist(),
        "weights": evidence.weights.tolist(),
        "strengths": dict(process.strengths),
        "begins_with_others": bool(np.isfinite(process.basis.expected).any()),
    }


def count_parts(space: SearchSpace, genes: Genes) -> Vector:
    """How often each architecture has each of ``space.distinct_parts``, shape (N, P)."""
    counts = np.zeros((len(genes), len(space.distinct_parts) + 1))
    rows = np.arange(len(genes))
    for indices in space.part_indices(genes):
        counts[rows, indices] += 1  # -1, for none, counts into the last column
    return counts[:, :-1]


def _basis(space: SearchSpace, others: Sequence[PartCosts]) -> PartBasis:
    parts = space.distinct_parts
    constant = np.zeros(len(parts))
    plain = np.column_stack([plain_features(parts), constant])
    mean = np.column_stack([*(each.part_ms for each in others), plain])
    overheads = np.array([*(each.overhead_ms for each in others), 0.0, 0.0, 0.0, 1.0])
    expected = np.array([*(np.inf for _ in others), *([_OWN_SHARE if others else np.inf] * plain.shape[1])])
    return PartBasis(mean, overheads, expected, part_features(parts), part_similarities(parts))
