"""Latency tables: what every part of a space costs on a target, and how well that predicts whole subnets."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.costs import Genes, Vector
from edgenas.errors import FormatError, MeasurementError, RunError, UsageError
from edgenas.files import parse, read_document, write_document
from edgenas.profilers.fit import PartCosts, count_parts, fit_parts, remembered, restored_parts
from edgenas.profilers.measurement import Measurement
from edgenas.profilers.part_process import PartProcess, fit_non_negative
from edgenas.space import SearchSpace
from edgenas.units import format_ms

_KIND, _VERSION = "latency_table", 2
_MINIMUM = 20
_CHUNK = 2048  # architectures at once: what is computed for them stays in the cache
_TWO_SIDED_95 = 1.959964


@dataclass(frozen=True)
class Certificate:
    """How far a table's predictions were from subnets that it was not fitted to; errors are fractions.

    ``noise``: the standard deviation that one measurement has by itself, as the
    fit estimates it. ``within_interval``: the share of held-out measurements
    within the 95% interval of the prediction and this noise together.
    """

    mape: float
    p95: float
    within_5_percent: float
    within_10_percent: float
    within_interval: float
    noise: float
    bias: float
    kendall_tau: float
    memory_mape: float
    fitted: int
    held_out: int
    device_s: float
    verdicts: dict[str, int]
    fastest: str
    fastest_ms: float
    slowest: str
    slowest_ms: float
    synthetic: bool

    def __str__(self) -> str:
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in self.verdicts.items())
        return (
            f"{self.held_out} held-out subnets ({self.fitted} fitted, {self.device_s:.0f} s of device time):"
            f" MAPE {self.mape:.1%}, p95 {self.p95:.1%}, within 10% {self.within_10_percent:.0%},"
            f" within the 95% interval {self.within_interval:.0%}, Kendall tau {self.kendall_tau:.2f},"
            f" bias {self.bias:+.1%}, noise of a measurement {self.noise:.1%}; memory MAPE {self.memory_mape:.1%};"
            f" measured {format_ms(self.fastest_ms)} to {format_ms(self.slowest_ms)}; verdicts: {verdicts}"
            + ("; SYNTHETIC" if self.synthetic else "")
        )


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """Predicted median latency and peak memory of every architecture of a space on one target.

    ``part_ms`` belongs to ``space.distinct_parts``: (P,), or (R, P) where a
    part has a cost of its own at each of the R resolutions, NaN where it does
    not occur. ``memory`` holds the bytes that a process needs beside one without
    a model: a constant, per byte of peak activations, per byte of weights.

    A published table has no ``certificate``, for nothing was measured here:
    ``source`` says where it is from, its latencies are sums of means, and its
    memory is counted, not measured. ``process`` is what the costs were inferred
    with; without one there are no intervals.
    """

    space: SearchSpace
    target: str
    overhead_ms: float
    part_ms: Vector
    memory: tuple[float, float, float]
    certificate: Certificate | None
    made_from: str
    source: str = ""
    process: PartProcess | None = None
    measured: Genes | None = None  # the subnets that the process was fitted to
    others: tuple[PartCosts, ...] = ()  # and what it began with: the costs on other targets

    @property
    def synthetic(self) -> bool:
        """Whether it was fitted to numbers that a fake device made up."""
        return self.certificate is not None and self.certificate.synthetic

    def latency_ms(self, genes: Genes) -> Vector:
        """Predicted median latency (N,) of genes (N, G), milliseconds."""
        latency = np.empty(len(genes))
        for first in range(0, len(genes), _CHUNK):
            rows = slice(first, first + _CHUNK)
            latency[rows] = self._sum(genes[rows])
        return self.overhead_ms + latency

    def _sum(self, genes: Genes) -> Vector:
        if self.part_ms.ndim == 1:
            return self.space.sum_over_parts(genes, self.part_ms)
        costs = np.pad(self.part_ms, ((0, 0), (1, 0)))  # the first column: no part
        first = genes[:, 0] * costs.shape[1] + 1
        total = np.zeros(len(genes))
        for indices in self.space.part_indices(genes):
            total += costs.take(first + indices)
        return total

    def spread_ms(self, genes: Genes) -> Vector:
        """The standard deviation (N,) of what the table knows of each latency, ms; noise of measuring is not in it.

        Raises UsageError for a published table, of which it is not known.
        """
        if self.process is None:
            raise UsageError(f"the table of {self.target} is not from measured subnets, so it has no intervals")
        spread = np.empty(len(genes))
        for first in range(0, len(genes), _CHUNK):
            rows = slice(first, first + _CHUNK)
            spread[rows] = self.process.spread(count_parts(self.space, genes[rows]))
        return spread

    def interval_ms(self, genes: Genes) -> Vector:
        """The ends (N, 2) of the 95% interval of each true median latency, milliseconds."""
        middle, half = self.latency_ms(genes), _TWO_SIDED_95 * self.spread_ms(genes)
        return np.column_stack([np.maximum(middle - half, 0.0), middle + half])

    def probability(self, genes: Genes, budget_ms: float) -> Vector:
        """How probable it is (N,) that the true median latency is at most ``budget_ms``."""
        from scipy.special import ndtr

        share: Vector = ndtr((budget_ms - self.latency_ms(genes)) / self.spread_ms(genes))
        return share

    def peak_bytes(self, genes: Genes) -> Vector:
        """Predicted peak memory (N,) of the process above one without a model, bytes."""
        peak: Vector = _memory_columns(self.space, genes) @ np.array(self.memory)
        return peak

    @classmethod
    def fit(
        cls,
        space: SearchSpace,
        target: str,
        genes: Genes,
        measurements: Sequence[Measurement],
        held_out: npt.NDArray[np.bool_],
        made_from: str,
        others: Sequence[LatencyTable] = (),
    ) -> LatencyTable:
        """A table from measured subnets, in the order of measuring; those in the mask ``held_out`` (N,) only judge it.

        ``others`` are tables of the same space on other targets: with them, few
        subnets do. Raises UsageError for fewer than 20 subnets to fit, or none
        held out, and for another table that is of another space.
        """
        _check_enough(held_out)
        latency, memory = _latency_and_memory(measurements)
        at_s = np.array([measurement.taken_s for measurement in measurements])
        known = tuple(_costs_of(other, space) for other in others)
        seen = ~held_out
        process = fit_parts(space, genes[seen], latency[seen], at_s[seen], known)
        columns = _memory_columns(space, genes)
        constant, activations, weights = fit_non_negative(columns[seen], memory[seen]).tolist()
        per_byte = (constant, activations, weights)
        table = cls(
            space,
            target,
            process.overhead,
            process.costs,
            per_byte,
            None,
            made_from,
            "",
            process,
            genes[seen],
            known,
        )
        return replace(table, certificate=_certify(table, genes, measurements, held_out))

    def save(self, path: Path) -> None:
        """Write the table as a JSON document."""
        keys = [part.key for part in self.space.distinct_parts]
        body: dict[str, Any] = {
            "made_from": self.made_from,
            "space": self.space.short_hash,
            "target": self.target,
            "source": self.source,
            "certificate": None if self.certificate is None else asdict(self.certificate),
            "overhead_ms": self.overhead_ms,
            "memory": list(self.memory),
            "parts_ms": dict(zip(keys, _to_plain(self.part_ms), strict=True)),
            "inferred": self._inferred(),
        }
        write_document(path, _KIND, _VERSION, body)

    def _inferred(self) -> dict[str, Any] | None:
        """What intervals are made from, as plain data."""
        if self.process is None or self.measured is None:
            return None
        subnets = [architecture.id for architecture in self.space.decode(self.measured)]
        others = [{"overhead_ms": each.overhead_ms, "parts_ms": each.part_ms.tolist()} for each in self.others]
        return {"architectures": subnets, "others": others, **remembered(self.process)}

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> LatencyTable:
        """Read a table of ``space``; FormatError when it is damaged or misses keys, RunError for another space."""
        body = read_document(path, _KIND, _VERSION)
        if body["space"] != space.short_hash:
            raise RunError(f"{path}: is of space {body['space']}, not of {space.short_hash}; profile again")
        part_ms = _from_plain(path, space, body["parts_ms"])
        constant, activations, weights = body["memory"]
        return cls(
            space,
            body["target"],
            body["overhead_ms"],
            part_ms,
            (constant, activations, weights),
            None if body["certificate"] is None else parse(Certificate, body["certificate"], str(path)),
            body["made_from"],
            body["source"],
            *_from_inferred(space, body["inferred"]),
        )


def _to_plain(part_ms: Vector) -> list[Any]:
    """Costs as JSON values, one a part: a number, or a list with one number a resolution and null for none."""
    if part_ms.ndim == 1:
        return list(part_ms.tolist())
    return [[None if np.isnan(cost) else cost for cost in costs] for costs in part_ms.T.tolist()]


def _from_plain(path: Path, space: SearchSpace, parts: dict[str, Any]) -> Vector:
    keys = [part.key for part in space.distinct_parts]
    missing = [key for key in keys if not _is_cost(parts.get(key))]
    if missing:
        raise FormatError(f"{path}: has no cost for {len(missing)} parts, the first is {missing[0]}; profile again")
    return np.array([parts[key] for key in keys], dtype=np.float64).T


def _from_inferred(
    space: SearchSpace, inferred: dict[str, Any] | None
) -> tuple[PartProcess | None, Genes | None, tuple[PartCosts, ...]]:
    if inferred is None:
        return None, None, ()
    genes = space.encode([space.from_id(text) for text in inferred["architectures"]])
    others = tuple(PartCosts(each["overhead_ms"], np.array(each["parts_ms"])) for each in inferred["others"])
    return restored_parts(space, genes, inferred, others), genes, others


def _check_enough(held_out: npt.NDArray[np.bool_]) -> None:
    if (~held_out).sum() < _MINIMUM or not held_out.any():
        raise UsageError(
            f"a latency table needs at least {_MINIMUM} subnets to fit and one held out,"
            f" but got {(~held_out).sum()} and {held_out.sum()}; give it more minutes"
        )


def _costs_of(other: LatencyTable, space: SearchSpace) -> PartCosts:
    if other.space != space:
        raise UsageError(
            f"the table of {other.target} is of space {other.space.short_hash}, not of {space.short_hash};"
            " give tables of the same space"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a part may occur at no resolution
        each = other.part_ms if other.part_ms.ndim == 1 else np.nan_to_num(np.nanmean(other.part_ms, axis=0))
    return PartCosts(other.overhead_ms, each)


def _is_cost(value: float | list[float | None] | None) -> bool:
    known = [cost for cost in (value if isinstance(value, list) else [value]) if cost is not None]
    return bool(known) and min(known) >= 0


def _latency_and_memory(measurements: Sequence[Measurement]) -> tuple[Vector, Vector]:
    """Median latencies in ms and peak memory in bytes, at least one byte; each (N,)."""
    peaks = [measurement.peak_bytes for measurement in measurements if measurement.peak_bytes is not None]
    if len(peaks) < len(measurements):
        raise MeasurementError(
            f"{len(measurements) - len(peaks)} of {len(measurements)} measurements say nothing about memory: the device"
            " gives no VmHWM; profile a Linux device"
        )
    return np.array([each.median_ms for each in measurements]), np.maximum(np.array(peaks, dtype=np.float64), 1.0)


def _memory_columns(space: SearchSpace, genes: Genes) -> Vector:
    return np.column_stack([np.ones(len(genes)), space.activation_bytes(genes), space.weight_bytes(genes)])


def _certify(
    table: LatencyTable, genes: Genes, measurements: Sequence[Measurement], held_out: npt.NDArray[np.bool_]
) -> Certificate:
    from scipy.stats import kendalltau

    assert table.process is not None
    latency, memory = _latency_and_memory(measurements)
    predicted, predicted_memory = table.latency_ms(genes), table.peak_bytes(genes)
    together = np.hypot(table.spread_ms(genes[held_out]) / predicted[held_out], table.process.noise)
    signed = (predicted / latency - 1)[held_out]
    error = np.abs(signed)
    tau = float(kendalltau(predicted[held_out], latency[held_out]).statistic)
    verdicts = [measurement.verdict.status for measurement in measurements]
    fastest, slowest = int(latency.argmin()), int(latency.argmax())
    ids = [architecture.id for architecture in table.space.decode(genes[[fastest, slowest]])]
    return Certificate(
        mape=float(error.mean()),
        p95=float(np.quantile(error, 0.95)),
        within_5_percent=float((error <= 0.05).mean()),
        within_10_percent=float((error <= 0.1).mean()),
        within_interval=float((error <= _TWO_SIDED_95 * together).mean()),
        noise=table.process.noise,
        bias=float(signed.mean()),
        kendall_tau=0.0 if np.isnan(tau) else tau,
        memory_mape=float(np.abs(predicted_memory / memory - 1)[held_out].mean()),
        fitted=int((~held_out).sum()),
        held_out=int(held_out.sum()),
        device_s=float(sum(measurement.device_s for measurement in measurements)),
        verdicts={status: verdicts.count(status) for status in sorted(set(verdicts))},
        fastest=ids[0],
        fastest_ms=float(latency[fastest]),
        slowest=ids[1],
        slowest_ms=float(latency[slowest]),
        synthetic=any(measurement.synthetic for measurement in measurements),
    )
