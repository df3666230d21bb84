"""What a process needs to run a subnet, as a sum of what the subnet has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from edgenas.costs import Genes, Vector, in_chunks
from edgenas.errors import MeasurementError
from edgenas.files import parse
from edgenas.profilers.measure.protocol import Amount
from edgenas.space import Part, SearchSpace
from edgenas.space.parts import activation_bytes, weight_bytes, weight_shapes

_LEAST_OF_MEDIAN = 0.5  # peaks below this share of the median count no more for being small


@dataclass(frozen=True)
class MemoryCosts:
    """Bytes of a process beyond an empty session: a constant, and for each of what a subnet has.

    ``per_activation_byte`` and ``per_weight_byte`` belong to the peak of float32
    activations and to float32 weights, whatever the precision; ``per_operator``
    to each operator that has weights.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    constant: Amount
    per_activation_byte: Amount
    per_weight_byte: Amount
    per_operator: Amount


@dataclass(frozen=True)
class MemoryModel:
    """Predicted peak memory of every architecture of a space.

    Runtimes hold weights more than once (as read, as laid out for their kernels),
    one arena for activations, and for every operator a kernel with what it
    prepared. The costs of these are fitted with the least sum of absolute
    relative errors and none below nothing, a linear program (P. Bloomfield,
    W. L. Steiger, Least Absolute Deviations, 1983, chapter 1): a few measurements
    that are wrong by any factor do not move it.
    """

    space: SearchSpace
    costs: MemoryCosts

    @classmethod
    def of(cls, space: SearchSpace, genes: Genes, peaks: Vector) -> MemoryModel:
        """Fitted to measured ``peaks`` (N,), bytes, of ``genes`` (N, G); those that are not above 0 say nothing.

        Raises MeasurementError when none says anything.
        """
        known = peaks > 0
        if not known.any():
            raise MeasurementError(
                f"all of {len(peaks)} measurements took no memory beyond an empty session: the device gives no VmHWM"
                " that can be used; profile a Linux device"
            )
        has = space.part_costs(weight_bytes), space.part_costs(_operators)
        columns = [np.ones(len(genes)), space.activation_bytes(genes)]
        columns += [space.sum_over_parts(genes, each) for each in has]
        return cls(space, MemoryCosts(*_fit(np.column_stack(columns)[known], peaks[known])))

    @classmethod
    def counted(cls, space: SearchSpace) -> MemoryModel:
        """Activations and weights once each, where nothing was measured."""
        return cls(space, MemoryCosts(0.0, 1.0, 1.0, 0.0))

    @classmethod
    def from_dict(cls, space: SearchSpace, data: Mapping[str, Any], where: str) -> MemoryModel:
        """The inverse of ``to_dict``; raises UsageError naming ``where`` for missing keys and wrong values."""
        return cls(space, parse(MemoryCosts, data, where))

    def to_dict(self) -> dict[str, float]:
        """The costs as plain data."""
        return asdict(self.costs)

    def peak_bytes(self, genes: Genes) -> Vector:
        """Predicted peak memory (N,) of the process above one with an empty session, bytes."""
        return in_chunks(self._peak_bytes, genes)

    def _peak_bytes(self, genes: Genes) -> Vector:
        added, most = np.zeros(len(genes)), np.zeros(len(genes))
        for indices in self.space.part_indices(genes):
            added += self._added[indices]
            np.maximum(most, self._most[indices], out=most)
        return added + most + self.costs.constant

    @cached_property
    def _added(self) -> Vector:
        """What each part adds; the last entry is for none, as index -1 finds it."""
        weights, operators = self.space.part_costs(weight_bytes), self.space.part_costs(_operators)
        return np.append(self.costs.per_weight_byte * weights + self.costs.per_operator * operators, 0.0)

    @cached_property
    def _most(self) -> Vector:
        """What each part's activations take, of which the most counts."""
        return np.append(self.costs.per_activation_byte * self.space.part_costs(activation_bytes), 0.0)


def memory_mape(predicted: Vector, peaks: Vector) -> float:
    """Mean relative error of predicted peaks (N,); those measured as nothing are left out, 1 when all are."""
    known = peaks > 0
    return float(np.abs(predicted[known] / peaks[known] - 1).mean()) if known.any() else 1.0


def _operators(part: Part) -> int:
    """How many of its operators have weights."""
    return sum(len(shape) > 1 for shape in weight_shapes(part).values())


def _fit(columns: Vector, peaks: Vector) -> list[float]:
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix, hstack, identity

    count, number = columns.shape
    typical = float(np.median(peaks))
    unit = np.maximum(columns.max(axis=0), 1e-12) / typical
    scale = np.maximum(peaks, _LEAST_OF_MEDIAN * typical)
    # What each prediction is above its peak, and what below: one of the two is 0.
    above = identity(count, format="csr")
    rows = hstack([csr_matrix(columns / unit / scale[:, None]), -above, above], format="csr")
    objective = np.append(np.zeros(number), np.ones(2 * count))
    found = linprog(objective, A_eq=rows, b_eq=peaks / scale, bounds=(0, None), method="highs")
    weights: list[float] = (found.x[:number] / unit).tolist()
    return weights
