"""Latency tables: the cost of every part of a space on a target, fitted to measured subnets."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.costs import Genes, Vector, apply_in_chunks
from edgenas.errors import FormatError, RunError, UsageError
from edgenas.files import Schema, format_value, parse_dataclass, rename_keys
from edgenas.profilers.latency.curve import Curve
from edgenas.profilers.latency.drift import Moments
from edgenas.profilers.latency.fit import PartCosts, fit_part_costs, part_count_matrix
from edgenas.profilers.latency.gaussian_process import PartProcess
from edgenas.profilers.latency.holdout import (
    KEYS_RENAMED_IN_TABLE_7,
    TWO_SIDED_95,
    HoldoutReport,
    MeasuredSubnets,
    Predictions,
    evaluate_holdout,
)
from edgenas.profilers.latency.memory import MemoryModel
from edgenas.profilers.latency.table_data import (
    TableData,
    costs_from_dict,
    costs_to_list,
    posterior_from_dict,
    posterior_to_dict,
)
from edgenas.profilers.measure.measurement import Measurement
from edgenas.space import Architecture, SearchSpace


def _upgrade_from_6(body: Mapping[str, Any]) -> dict[str, Any]:
    names = {"made_from": "inputs_digest", "inferred": "posterior", "strengths": "variances", "lean": "transfer_weight"}
    return {**rename_keys(body, {**KEYS_RENAMED_IN_TABLE_7, **names})}


def _upgrade_from_7(body: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the variances of version 7, which had other covariances: the costs are fitted to the same values anew.

    These were scaled to one speed of the CPU, so they have no speed probe.

    The holdout report is still that of the older fit. Without the digest the next ``edgenas profile`` makes the
    table again, from recorded measurements.
    """
    posterior = body["posterior"]
    if posterior is None:
        return dict(body)
    probe_ms = [None] * len(posterior["at_s"])
    return {**body, "inputs_digest": "", "posterior": {**posterior, "probe_ms": probe_ms, "variances": None}}


def _upgrade_from_8(body: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of the holdout report what is not computed any more."""
    holdout = body["holdout"]
    if holdout is None:
        return dict(body)
    gone = ("kendall_tau_at", "drift_corrected", "reference_ms", "probe_ms")
    kept = {key: value for key, value in holdout.items() if key not in gone}
    return {**body, "holdout": {**kept, "kendall_tau_within": None, "compared_pairs": 0}}


TABLE_SCHEMA = Schema("latency_table", 9, {6: _upgrade_from_6, 7: _upgrade_from_7, 8: _upgrade_from_8})
_MIN_FITTED, _MIN_FITTED_WITH_SOURCES = 20, 5


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """Predicted median latency and peak memory of every architecture of a space on one target.

    Attributes:
        space: The search space, of P distinct parts and R resolutions.
        target: The name of the target.
        overhead_ms: The latency besides the parts, milliseconds.
        part_ms: The cost of each of ``space.distinct_parts`` (P,), milliseconds; or (R, P), one for each resolution,
            NaN for parts that do not occur at one.
        memory: The peak memory of a process above one with an empty session.
        holdout: The errors on held-out subnets; None for a published table, for which nothing was measured here.
        inputs_digest: A digest of everything that the table was made from.
        source: The origin of a published table; empty for a measured one.
        process: The posterior of the costs; None for a published table, which has no intervals.
        fitted_genes: The subnets (N, G) that the process was fitted to, or None.
        source_costs: The costs on other targets that the fit began with.
        curve: The factor on the sum of overhead and parts; None for a published table.

    Example:
        >>> import numpy as np
        >>> from edgenas import LatencyTable, MobileNetV3
        >>> from edgenas.profilers.latency.memory import MemoryModel
        >>> space = MobileNetV3(width=0.35, resolutions=(24, 32), classes=10)
        >>> part_ms = np.full(len(space.distinct_parts), 0.25)
        >>> memory = MemoryModel.with_unit_costs(space)
        >>> table = LatencyTable(space, "made-up", 1.0, part_ms, memory, None, "", "an example")
        >>> len(space.smallest.parts)
        16
        >>> table.latency_ms(space.encode([space.smallest])).tolist()
        [5.0]
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
    fitted_genes: Genes | None = None
    source_costs: tuple[PartCosts, ...] = ()
    curve: Curve | None = None

    def __repr__(self) -> str:
        known = f"MAPE {self.holdout.mape:.1%}" if self.holdout else self.source
        return f"LatencyTable({self.target}, {len(self.space.distinct_parts)} parts, {known})"

    @property
    def synthetic(self) -> bool:
        """True if the table was fitted to measurements that a fake device made up."""
        return self.holdout is not None and self.holdout.synthetic

    @property
    def transfer_weight(self) -> float | None:
        """The share of the base costs that is from source tables, from 0 to 1; None without source tables."""
        return self.process.basis.transfer_weight if self.process and self.source_costs else None

    def latency_ms(self, genes: Genes) -> Vector:
        """Return the predicted median latency (N,) of genes (N, G), milliseconds."""
        return apply_in_chunks(lambda rows: self._apply_curve(self.overhead_ms + self._sum_parts(rows)), genes)

    def _apply_curve(self, sums: Vector) -> Vector:
        return sums if self.curve is None else self.curve(sums)

    def _sum_parts(self, genes: Genes) -> Vector:
        if self.part_ms.ndim == 1:
            return self.space.sum_over_parts(genes, self.part_ms)
        costs = np.pad(self.part_ms, ((0, 0), (1, 0)))  # the first column: no part
        first = genes[:, 0] * costs.shape[1] + 1
        total = np.zeros(len(genes))
        for indices in self.space.part_indices(genes):
            total += costs.take(first + indices)
        return total

    def part_costs_by_name(self, architecture: Architecture) -> dict[str, float]:
        """Return the share of each part in an architecture's latency, ms, by the name of its place.

        The rest is overhead. Parts and overhead share the effect of the curve in proportion.
        """
        costs = self.part_ms if self.part_ms.ndim == 1 else self.part_ms[architecture.genes[0]]
        by_key = {part.key: cost for part, cost in zip(self.space.distinct_parts, costs.tolist(), strict=True)}
        by_place = {name: by_key[part.key] for name, part in architecture.parts.items()}
        total = self.overhead_ms + sum(by_place.values())
        factor = float(self._apply_curve(np.array([total]))[0]) / total
        return {name: factor * cost for name, cost in by_place.items()}

    def source_costs_for(self, space: SearchSpace) -> PartCosts:
        """Return the costs that another target's table of ``space`` begins with.

        Raises:
            UsageError: If this table is of another space.
        """
        if self.space != space:
            raise UsageError(
                f"the table of {self.target} is of space {self.space.short_hash}, not of {space.short_hash};"
                " give tables of the same space"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a part may occur at no resolution
            part_ms = self.part_ms if self.part_ms.ndim == 1 else np.nan_to_num(np.nanmean(self.part_ms, axis=0))
        return PartCosts(self.overhead_ms, part_ms)

    def latency_std_ms(self, genes: Genes) -> Vector:
        """Return the standard deviation (N,) of the predicted latency, ms, without noise of measuring.

        Raises:
            UsageError: For a published table, which has none.
        """
        process = self.process
        if process is None:
            raise UsageError(f"the table of {self.target} is not from measured subnets, so it has no intervals")
        return apply_in_chunks(lambda rows: process.predict_std(part_count_matrix(self.space, rows)), genes)

    def interval_ms(self, genes: Genes) -> Vector:
        """Return the ends (N, 2) of the 95% interval of each true median latency, milliseconds."""
        mean, half_width = self.latency_ms(genes), TWO_SIDED_95 * self.latency_std_ms(genes)
        return np.column_stack([np.maximum(mean - half_width, 0.0), mean + half_width])

    def probability_within_budget(self, genes: Genes, budget_ms: float) -> Vector:
        """Return the probability (N,) that the true median latency is at most ``budget_ms``."""
        from scipy.special import ndtr

        probability: Vector = ndtr((budget_ms - self.latency_ms(genes)) / self.latency_std_ms(genes))
        return probability

    def peak_bytes(self, genes: Genes) -> Vector:
        """Return the predicted peak memory (N,) of the process above one with an empty session, bytes."""
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
        source_tables: Sequence[LatencyTable] = (),
    ) -> LatencyTable:
        """Fit a table to measured subnets.

        Args:
            space: The search space.
            target: The name of the target.
            genes: The measured subnets (N, G), in the order of measuring.
            measurements: Their measurements. If none has a peak memory, as with an accelerator, memory is counted.
            held_out: The mask (N,) of subnets that are not fitted, for the holdout report.
            inputs_digest: A digest of everything that the table is made from.
            source_tables: Tables of the same space on other targets; with them, few subnets are enough.

        Raises:
            UsageError: For fewer than 20 subnets to fit (5 with source tables), for none held out, and for a source
                table of another space.
        """
        _check_enough_subnets(held_out, _MIN_FITTED_WITH_SOURCES if source_tables else _MIN_FITTED)
        subnets = MeasuredSubnets.of(genes, [[each] for each in measurements])
        latency, memory, moments = subnets.latency_ms, subnets.peak_bytes, Moments.of(measurements)
        source_costs = tuple(table.source_costs_for(space) for table in source_tables)
        fitted = ~held_out
        process = fit_part_costs(space, genes[fitted], latency[fitted], moments[fitted], source_costs)
        has_memory = memory[fitted].any()
        table = cls(
            space,
            target,
            process.overhead,
            process.costs,
            MemoryModel.fit(space, genes[fitted], memory[fitted]) if has_memory else MemoryModel.with_unit_costs(space),
            None,
            inputs_digest,
            "",
            process,
            genes[fitted],
            source_costs,
            process.curve,
        )
        return replace(table, holdout=table.evaluate(subnets, held_out))

    def evaluate(self, subnets: MeasuredSubnets, held_out: npt.NDArray[np.bool_]) -> HoldoutReport:
        """Return the errors on measured subnets (N) that the table was not fitted to, those in the mask (N,)."""
        assert self.process is not None
        rows = subnets.genes[held_out]
        predictions = Predictions(self.latency_ms(rows), self.latency_std_ms(rows), self.peak_bytes(rows))
        return evaluate_holdout(self.space, self.process, predictions, subnets, held_out)

    def fitted_latencies_ms(self, genes: Genes) -> Vector:
        """Return the measured latencies (N,), ms, of subnets (N, G) that the table was fitted to."""
        assert self.process is not None
        assert self.fitted_genes is not None
        measured = dict(zip(map(tuple, self.fitted_genes.tolist()), self.process.observations.values, strict=True))
        return np.array([measured[tuple(row)] for row in genes.tolist()])

    def save(self, path: str | Path) -> None:
        """Write the table as a JSON document."""
        keys = [part.key for part in self.space.distinct_parts]
        posterior = None
        if self.process is not None and self.fitted_genes is not None:
            posterior = posterior_to_dict(self.space, self.process, self.fitted_genes, self.source_costs)
        body: dict[str, Any] = {
            "inputs_digest": self.inputs_digest,
            "space": self.space.short_hash,
            "target": self.target,
            "source": self.source,
            "holdout": None if self.holdout is None else asdict(self.holdout),
            "overhead_ms": self.overhead_ms,
            "memory": self.memory.to_dict(),
            "parts_ms": dict(zip(keys, costs_to_list(self.part_ms), strict=True)),
            "curve": None if self.curve is None else self.curve.to_dict(),
            "posterior": posterior,
        }
        TABLE_SCHEMA.write(Path(path), body)

    @classmethod
    def load(cls, path: str | Path, space: SearchSpace) -> LatencyTable:
        """Read a table of ``space``.

        Raises:
            FormatError: If the file is damaged or a key is missing or wrong.
            RunError: If the table is of another space.
        """
        body = TABLE_SCHEMA.read(Path(path))
        if body["space"] != space.short_hash:
            raise RunError(
                f"{path}: is of space {format_value(body['space'])}, not of {space.short_hash}; profile again"
            )
        values = {field.name: body[field.name] for field in fields(TableData)}
        try:
            return cls._from_data(parse_dataclass(TableData, values, "table"), space)
        except UsageError as error:
            raise FormatError(f"{path}: {error}; profile again") from None

    @classmethod
    def _from_data(cls, data: TableData, space: SearchSpace) -> LatencyTable:
        process, fitted_genes, source_costs = (
            (None, None, ()) if data.posterior is None else posterior_from_dict(space, data.posterior)
        )
        overhead_ms, part_ms = data.overhead_ms, costs_from_dict(space, data.parts_ms)
        curve = None if data.curve is None else Curve.from_dict(data.curve)
        if process is not None and data.posterior is not None and data.posterior["variances"] is None:  # fitted anew
            overhead_ms, part_ms, curve = process.overhead, process.costs, process.curve
        return cls(
            space,
            data.target,
            overhead_ms,
            part_ms,
            MemoryModel.from_dict(space, data.memory, "memory"),
            data.holdout,
            data.inputs_digest,
            data.source,
            process,
            fitted_genes,
            source_costs,
            curve,
        )


def _check_enough_subnets(held_out: npt.NDArray[np.bool_], least: int) -> None:
    if (~held_out).sum() < least or not held_out.any():
        raise UsageError(
            f"a latency table needs at least {least} subnets to fit and one held out,"
            f" but got {(~held_out).sum()} and {held_out.sum()}; give it more minutes"
        )
