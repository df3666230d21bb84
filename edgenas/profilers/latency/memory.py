"""Peak memory of the process that runs a subnet, as a weighted sum of the subnet's properties."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from edgenas.costs import Genes, Vector, apply_in_chunks
from edgenas.errors import MeasurementError
from edgenas.files import Amount, parse_dataclass
from edgenas.space import Part, SearchSpace
from edgenas.space.parts import activation_bytes, weight_bytes, weight_shapes

_MIN_SHARE_OF_MEDIAN = 0.5  # relative errors of peaks below this share of the median count as those at it


@dataclass(frozen=True)
class MemoryCosts:
    """Bytes of a process above an empty session: a constant, and a cost for each property of a subnet.

    ``per_activation_byte`` and ``per_weight_byte`` refer to the peak of float32 activations and to float32 weights,
    for any precision; ``per_operator`` to each operator with weights.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    constant: Amount
    per_activation_byte: Amount
    per_weight_byte: Amount
    per_operator: Amount


@dataclass(frozen=True)
class MemoryModel:
    """Predicted peak memory of every architecture of a space.

    Runtimes hold weights more than once (as read, and as laid out for their kernels), one arena for activations, and
    a kernel with its prepared data for every operator. The costs are non-negative and have the least sum of absolute
    relative errors, a linear program (P. Bloomfield, W. L. Steiger, Least Absolute Deviations, 1983, chapter 1): a
    few measurements that are wrong by any factor do not move them.
    """

    space: SearchSpace
    costs: MemoryCosts

    @classmethod
    def fit(cls, space: SearchSpace, genes: Genes, peaks: Vector) -> MemoryModel:
        """Fit to measured ``peaks`` (N,), bytes, of ``genes`` (N, G); peaks that are not above 0 are left out.

        Raises:
            MeasurementError: If no peak is above 0.
        """
        known = peaks > 0
        if not known.any():
            raise MeasurementError(
                f"all of {len(peaks)} measurements took no memory beyond an empty session: the device gives no VmHWM"
                " that can be used; profile a Linux device"
            )
        part_costs = space.part_costs(weight_bytes), space.part_costs(_count_weighted_operators)
        columns = [np.ones(len(genes)), space.activation_bytes(genes)]
        columns += [space.sum_over_parts(genes, costs) for costs in part_costs]
        return cls(space, MemoryCosts(*_fit_least_absolute_deviations(np.column_stack(columns)[known], peaks[known])))

    @classmethod
    def with_unit_costs(cls, space: SearchSpace) -> MemoryModel:
        """Return the model that counts activations and weights once each, for tables without measured memory."""
        return cls(space, MemoryCosts(0.0, 1.0, 1.0, 0.0))

    @classmethod
    def from_dict(cls, space: SearchSpace, data: Mapping[str, Any], where: str) -> MemoryModel:
        """Return the model of ``to_dict``; raise UsageError naming ``where`` for missing keys and wrong values."""
        return cls(space, parse_dataclass(MemoryCosts, data, where))

    def to_dict(self) -> dict[str, float]:
        """Return the costs as plain data."""
        return asdict(self.costs)

    def peak_bytes(self, genes: Genes) -> Vector:
        """Return the predicted peak memory (N,) of the process above one with an empty session, bytes."""
        return apply_in_chunks(self._peak_bytes_of_rows, genes)

    def _peak_bytes_of_rows(self, genes: Genes) -> Vector:
        added, peak = np.zeros(len(genes)), np.zeros(len(genes))
        for indices in self.space.part_indices(genes):
            added += self._added_bytes_by_part[indices]
            np.maximum(peak, self._activation_bytes_by_part[indices], out=peak)
        return added + peak + self.costs.constant

    @cached_property
    def _added_bytes_by_part(self) -> Vector:
        """Bytes that each part adds; the last entry is for no part, which has index -1."""
        weights, operators = self.space.part_costs(weight_bytes), self.space.part_costs(_count_weighted_operators)
        return np.append(self.costs.per_weight_byte * weights + self.costs.per_operator * operators, 0.0)

    @cached_property
    def _activation_bytes_by_part(self) -> Vector:
        """Bytes for each part's activations, of which the largest counts; the last entry is for no part."""
        return np.append(self.costs.per_activation_byte * self.space.part_costs(activation_bytes), 0.0)


def memory_mape(predicted: Vector, peaks: Vector) -> float:
    """Return the mean absolute relative error of predicted peaks (N,) without those of zero; 1 if all are zero."""
    known = peaks > 0
    return float(np.abs(predicted[known] / peaks[known] - 1).mean()) if known.any() else 1.0


def _count_weighted_operators(part: Part) -> int:
    return sum(len(shape) > 1 for shape in weight_shapes(part).values())


def _fit_least_absolute_deviations(columns: Vector, peaks: Vector) -> list[float]:
    """Return weights >= 0 (K,) of columns (N, K) with the least sum of absolute relative errors."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix, hstack, identity

    rows, count = columns.shape
    median = float(np.median(peaks))
    unit = np.maximum(columns.max(axis=0), 1e-12) / median
    scale = np.maximum(peaks, _MIN_SHARE_OF_MEDIAN * median)
    # The slack of each prediction above its peak, and below: one of the two is 0.
    above = identity(rows, format="csr")
    constraints = hstack([csr_matrix(columns / unit / scale[:, None]), -above, above], format="csr")
    objective = np.append(np.zeros(count), np.ones(2 * rows))
    solution = linprog(objective, A_eq=constraints, b_eq=peaks / scale, bounds=(0, None), method="highs")
    weights: list[float] = (solution.x[:count] / unit).tolist()
    return weights
