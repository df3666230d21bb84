"""Latency tables: what every part of a space costs on a target, and how well that predicts whole subnets."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Ge

from edgenas.costs import Genes, Vector, apply_in_chunks
from edgenas.errors import FormatError, RunError, UsageError
from edgenas.files import parse_dataclass, read_document, write_document
from edgenas.profilers.latency.curve import Curve
from edgenas.profilers.latency.fit import PartCosts, count_parts, fit_parts
from edgenas.profilers.latency.gaussian_process import PartProcess
from edgenas.profilers.latency.holdout import TWO_SIDED_95, HoldoutReport, evaluate_holdout, latency_and_memory
from edgenas.profilers.latency.memory import MemoryModel
from edgenas.profilers.latency.posterior import posterior_from_dict, posterior_to_dict
from edgenas.profilers.measure.measurement import Measurement
from edgenas.space import Architecture, SearchSpace

_KIND, _VERSION = "latency_table", 6
_LEAST, _LEAST_WITH_OTHERS = 20, 5  # subnets to fit


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """Predicted median latency and peak memory of every architecture of a space on one target.

    ``part_ms`` belongs to ``space.distinct_parts``: (P,), or (R, P) where a
    part has a cost of its own at each of the R resolutions, NaN where it does
    not occur. ``memory`` is what a process needs above one with an empty session.

    A published table has no ``certificate``, for nothing was measured here:
    ``source`` says where it is from, its latencies are sums of means, and its
    memory is counted, not measured. ``process`` is what the costs were inferred
    with; without one there are no intervals.
    """

    space: SearchSpace
    target: str
    overhead_ms: float
    part_ms: Vector
    memory: MemoryModel
    holdout: HoldoutReport | None
    inputs_digest: str
    source: str = ""
    process: PartProcess | None = None
    measured: Genes | None = None  # the subnets that the process was fitted to
    others: tuple[PartCosts, ...] = ()  # and what it began with: the costs on other targets
    curve: Curve | None = None  # of latencies over the sum of overhead and parts; none in published tables

    @property
    def synthetic(self) -> bool:
        """Whether it was fitted to numbers that a fake device made up."""
        return self.holdout is not None and self.holdout.synthetic

    @property
    def transfer_weight(self) -> float | None:
        """How far it leans on other targets' tables, from 0 (not at all) to 1; None where none were given."""
        return self.process.basis.transfer_weight if self.process and self.others else None

    def latency_ms(self, genes: Genes) -> Vector:
        """Predicted median latency (N,) of genes (N, G), milliseconds."""
        return apply_in_chunks(lambda rows: self._curved(self.overhead_ms + self._sum(rows)), genes)

    def _curved(self, sums: Vector) -> Vector:
        return sums if self.curve is None else self.curve(sums)

    def _sum(self, genes: Genes) -> Vector:
        if self.part_ms.ndim == 1:
            return self.space.sum_over_parts(genes, self.part_ms)
        costs = np.pad(self.part_ms, ((0, 0), (1, 0)))  # the first column: no part
        first = genes[:, 0] * costs.shape[1] + 1
        total = np.zeros(len(genes))
        for indices in self.space.part_indices(genes):
            total += costs.take(first + indices)
        return total

    def part_costs(self, architecture: Architecture) -> dict[str, float]:
        """What each part of an architecture takes of its latency, ms, by the name of its place; the rest is overhead.

        What the curve adds to the whole, each part and the overhead have their share of.
        """
        costs = self.part_ms if self.part_ms.ndim == 1 else self.part_ms[architecture.genes[0]]
        by_key = {part.key: cost for part, cost in zip(self.space.distinct_parts, costs.tolist(), strict=True)}
        found = {name: by_key[part.key] for name, part in architecture.parts.items()}
        total = self.overhead_ms + sum(found.values())
        factor = float(self._curved(np.array([total]))[0]) / total
        return {name: factor * cost for name, cost in found.items()}

    def costs_for(self, space: SearchSpace) -> PartCosts:
        """What another target's table begins with; raises UsageError where that is of another space."""
        if self.space != space:
            raise UsageError(
                f"the table of {self.target} is of space {self.space.short_hash}, not of {space.short_hash};"
                " give tables of the same space"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a part may occur at no resolution
            each = self.part_ms if self.part_ms.ndim == 1 else np.nan_to_num(np.nanmean(self.part_ms, axis=0))
        return PartCosts(self.overhead_ms, each)

    def spread_ms(self, genes: Genes) -> Vector:
        """The standard deviation (N,) of what the table knows of each latency, ms; noise of measuring is not in it.

        Raises UsageError for a published table, of which it is not known.
        """
        process = self.process
        if process is None:
            raise UsageError(f"the table of {self.target} is not from measured subnets, so it has no intervals")
        return apply_in_chunks(lambda rows: process.spread(count_parts(self.space, rows)), genes)

    def standardized_residuals(self, genes: Genes, measured_ms: Vector, *, drifting: bool = True) -> Vector:
        """How far measured medians (N,) of genes (N, G) are from predictions, in half widths of the 95% interval.

        The interval is that of the prediction, one measurement's noise and, where
        it is ``drifting``, the drift at its moment together. Raises UsageError for
        a published table.
        """
        predicted, spread = self.latency_ms(genes), self.spread_ms(genes)
        assert self.process is not None  # spread_ms has looked
        drift = self.process.drift(predicted) if drifting else 0.0
        together = np.hypot(spread / predicted, np.hypot(self.process.noise, drift))
        return np.asarray(np.abs(predicted / measured_ms - 1) / (TWO_SIDED_95 * together))

    def interval_ms(self, genes: Genes) -> Vector:
        """The ends (N, 2) of the 95% interval of each true median latency, milliseconds."""
        middle, half = self.latency_ms(genes), TWO_SIDED_95 * self.spread_ms(genes)
        return np.column_stack([np.maximum(middle - half, 0.0), middle + half])

    def probability(self, genes: Genes, budget_ms: float) -> Vector:
        """How probable it is (N,) that the true median latency is at most ``budget_ms``."""
        from scipy.special import ndtr

        share: Vector = ndtr((budget_ms - self.latency_ms(genes)) / self.spread_ms(genes))
        return share

    def peak_bytes(self, genes: Genes) -> Vector:
        """Predicted peak memory (N,) of the process above one with an empty session, bytes."""
        return self.memory.peak_bytes(genes)

    @classmethod
    def fit(
        cls,
        space: SearchSpace,
        target: str,
        genes: Genes,
        measurements: Sequence[Measurement],
        held_out: npt.NDArray[np.bool_],
        inputs_digest: str,
        others: Sequence[LatencyTable] = (),
        reference: Sequence[Measurement] = (),
    ) -> LatencyTable:
        """A table from measured subnets, in the order of measuring; those in the mask ``held_out`` (N,) only judge it.

        ``others`` are tables of the same space on other targets: with them, few
        subnets do. ``reference``: the processes of the reference model between
        them. Memory that no measurement knows, as with an accelerator, is counted
        instead. Raises UsageError for fewer than 20 subnets to fit (5 with others), or
        none held out, and for another table that is of another space.
        """
        _check_enough(held_out, _LEAST_WITH_OTHERS if others else _LEAST)
        latency, memory = latency_and_memory(measurements)
        at_s = np.array([measurement.taken_s for measurement in measurements])
        known = tuple(other.costs_for(space) for other in others)
        seen = ~held_out
        process = fit_parts(space, genes[seen], latency[seen], at_s[seen], known)
        table = cls(
            space,
            target,
            process.overhead,
            process.costs,
            MemoryModel.of(space, genes[seen], memory[seen]) if memory[seen].any() else MemoryModel.counted(space),
            None,
            inputs_digest,
            "",
            process,
            genes[seen],
            known,
            process.curve,
        )
        return replace(table, holdout=evaluate_holdout(table, genes, measurements, held_out, reference))

    def save(self, path: Path) -> None:
        """Write the table as a JSON document."""
        keys = [part.key for part in self.space.distinct_parts]
        body: dict[str, Any] = {
            "inputs_digest": self.inputs_digest,
            "space": self.space.short_hash,
            "target": self.target,
            "source": self.source,
            "holdout": None if self.holdout is None else asdict(self.holdout),
            "overhead_ms": self.overhead_ms,
            "memory": self.memory.to_dict(),
            "parts_ms": dict(zip(keys, _to_plain(self.part_ms), strict=True)),
            "curve": None if self.curve is None else self.curve.to_dict(),
            "posterior": self._posterior_to_dict(),
        }
        write_document(path, _KIND, _VERSION, body)

    def _posterior_to_dict(self) -> dict[str, Any] | None:
        """What intervals are made from, as plain data."""
        if self.process is None or self.measured is None:
            return None
        return posterior_to_dict(self.space, self.process, self.measured, self.others)

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> LatencyTable:
        """Read a table of ``space``; FormatError when it is damaged or misses keys, RunError for another space."""
        body = read_document(path, _KIND, _VERSION)
        if body["space"] != space.short_hash:
            raise RunError(f"{path}: is of space {body['space']}, not of {space.short_hash}; profile again")
        said = {each.name: body[each.name] for each in fields(_Stored)}
        try:
            return cls._from_stored(parse_dataclass(_Stored, said, "table"), space)
        except UsageError as error:
            raise FormatError(f"{path}: {error}; profile again") from None

    @classmethod
    def _from_stored(cls, stored: _Stored, space: SearchSpace) -> LatencyTable:
        process, measured, others = (
            (None, None, ()) if stored.posterior is None else posterior_from_dict(space, stored.posterior)
        )
        return cls(
            space,
            stored.target,
            stored.overhead_ms,
            _from_plain(space, stored.parts_ms),
            MemoryModel.from_dict(space, stored.memory, "memory"),
            stored.holdout,
            stored.inputs_digest,
            stored.source,
            process,
            measured,
            others,
            None if stored.curve is None else Curve.from_dict(stored.curve),
        )


_PlainCost = float | list[float | None]


@dataclass(frozen=True)
class _Stored:
    """What a table's file says in plain values; ``memory``, ``curve`` and ``inferred`` are looked at elsewhere."""

    inputs_digest: str
    target: str
    source: str
    holdout: HoldoutReport | None
    overhead_ms: Annotated[float, Ge(0)]
    parts_ms: dict[str, _PlainCost | None]
    memory: dict[str, Any]
    curve: dict[str, Any] | None
    posterior: dict[str, Any] | None


def _to_plain(part_ms: Vector) -> list[Any]:
    """Costs as JSON values, one a part: a number, or a list with one number a resolution and null for none."""
    if part_ms.ndim == 1:
        return list(part_ms.tolist())
    return [[None if np.isnan(cost) else cost for cost in costs] for costs in part_ms.T.tolist()]


def _from_plain(space: SearchSpace, parts: Mapping[str, _PlainCost | None]) -> Vector:
    keys = [part.key for part in space.distinct_parts]
    missing = [key for key in keys if not _is_cost(parts.get(key))]
    if missing:
        raise FormatError(f"has no cost for {len(missing)} parts, the first is {missing[0]}")
    costs = [parts[key] for key in keys]
    lengths = {len(cost) if isinstance(cost, list) else 0 for cost in costs}
    if lengths not in ({0}, {len(space.resolutions)}):
        raise FormatError("parts_ms must have a number a part, or one for each resolution")
    return np.array(costs, dtype=np.float64).T


def _check_enough(held_out: npt.NDArray[np.bool_], least: int) -> None:
    if (~held_out).sum() < least or not held_out.any():
        raise UsageError(
            f"a latency table needs at least {least} subnets to fit and one held out,"
            f" but got {(~held_out).sum()} and {held_out.sum()}; give it more minutes"
        )


def _is_cost(value: _PlainCost | None) -> bool:
    known = [cost for cost in (value if isinstance(value, list) else [value]) if cost is not None]
    return bool(known) and min(known) >= 0
