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
from edgenas.profilers.part_process import Evidence, PartBasis, PartProcess, fit_part_process
from edgenas.space import SearchSpace


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

    ``others``: costs of the same parts on other targets. They replace the plain
    features as what a cost is before anything was measured.
    """
    return fit_part_process(_basis(space, others), count_parts(space, genes), latency_ms, at_s)


def restored_parts(
    space: SearchSpace, genes: Genes, data: Mapping[str, Any], others: Sequence[PartCosts] = ()
) -> PartProcess:
    """The process again, from what ``remembered`` says of it."""
    vectors = (np.array(data[name], dtype=np.float64) for name in ("latency_ms", "at_s", "weights"))
    evidence = Evidence(count_parts(space, genes), *vectors)
    return PartProcess(_basis(space, others), evidence, data["strengths"])


def remembered(process: PartProcess) -> dict[str, Any]:
    """What a process needs beside its space, its genes and the other targets' costs, as plain data."""
    evidence = process.evidence
    return {
        "latency_ms": evidence.values.tolist(),
        "at_s": evidence.at_s.tolist(),
        "weights": evidence.weights.tolist(),
        "strengths": dict(process.strengths),
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
    detail, similarities = part_features(parts), part_similarities(parts)
    if not others:
        return PartBasis(plain_features(parts), detail, similarities)
    overheads = np.array([each.overhead_ms for each in others])
    return PartBasis(np.column_stack([each.part_ms for each in others]), detail, similarities, overheads)
