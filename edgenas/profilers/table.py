"""Latency tables: what every part of a space costs on a target, and how well that predicts whole subnets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.costs import Genes, Vector
from edgenas.errors import FormatError, MeasurementError, RunError, UsageError
from edgenas.files import parse, read_document, write_document
from edgenas.profilers.fit import fit_non_negative, fit_part_costs
from edgenas.profilers.measurement import Measurement
from edgenas.space import SearchSpace
from edgenas.units import format_ms

_KIND, _VERSION = "latency_table", 1
_MINIMUM = 20


@dataclass(frozen=True)
class Certificate:
    """How far a table's predictions were from subnets that it was not fitted to; errors are fractions."""

    mape: float
    p95: float
    within_5_percent: float
    within_10_percent: float
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
            f" Kendall tau {self.kendall_tau:.2f}, bias {self.bias:+.1%}; memory MAPE {self.memory_mape:.1%};"
            f" measured {format_ms(self.fastest_ms)} to {format_ms(self.slowest_ms)}; verdicts: {verdicts}"
            + ("; SYNTHETIC" if self.synthetic else "")
        )


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """Predicted median latency and peak memory of every architecture of a space on one target.

    ``part_ms`` (P,) belongs to ``space.distinct_parts``; ``memory`` holds the
    bytes that a process needs beside one without a model: a constant, per byte
    of peak activations, per byte of weights.
    """

    space: SearchSpace
    target: str
    overhead_ms: float
    part_ms: Vector
    memory: tuple[float, float, float]
    certificate: Certificate
    made_from: str

    def latency_ms(self, genes: Genes) -> Vector:
        """Predicted median latency (N,) of genes (N, G), milliseconds."""
        return self.overhead_ms + self.space.sum_over_parts(genes, self.part_ms)

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
    ) -> LatencyTable:
        """A table from measured subnets; those in the mask ``held_out`` (N,) only judge it.

        Raises UsageError for fewer than 20 subnets to fit, or none held out.
        """
        if (~held_out).sum() < _MINIMUM or not held_out.any():
            raise UsageError(
                f"a latency table needs at least {_MINIMUM} subnets to fit and one held out,"
                f" but got {(~held_out).sum()} and {held_out.sum()}; give it more minutes"
            )
        latency, memory = _latency_and_memory(measurements)
        overhead, part_ms = fit_part_costs(space, genes[~held_out], latency[~held_out])
        columns = _memory_columns(space, genes)
        constant, activations, weights = fit_non_negative(columns[~held_out], memory[~held_out]).tolist()
        predicted = overhead + space.sum_over_parts(genes, part_ms)
        predicted_memory = columns @ np.array([constant, activations, weights])
        certificate = _certify(space, genes, measurements, held_out, predicted, predicted_memory)
        return cls(space, target, overhead, part_ms, (constant, activations, weights), certificate, made_from)

    def save(self, path: Path) -> None:
        """Write the table as a JSON document."""
        keys = [part.key for part in self.space.distinct_parts]
        body: dict[str, Any] = {
            "made_from": self.made_from,
            "space": self.space.short_hash,
            "target": self.target,
            "certificate": asdict(self.certificate),
            "overhead_ms": self.overhead_ms,
            "memory": list(self.memory),
            "parts_ms": dict(zip(keys, self.part_ms.tolist(), strict=True)),
        }
        write_document(path, _KIND, _VERSION, body)

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> LatencyTable:
        """Read a table of ``space``; FormatError when it is damaged or misses keys, RunError for another space."""
        body = read_document(path, _KIND, _VERSION)
        if body["space"] != space.short_hash:
            raise RunError(f"{path}: is of space {body['space']}, not of {space.short_hash}; profile again")
        parts: dict[str, float] = body["parts_ms"]
        missing = [part.key for part in space.distinct_parts if not parts.get(part.key, -1.0) >= 0]
        if missing:
            raise FormatError(f"{path}: has no cost for {len(missing)} parts, the first is {missing[0]}; profile again")
        constant, activations, weights = body["memory"]
        return cls(
            space,
            body["target"],
            body["overhead_ms"],
            np.array([parts[part.key] for part in space.distinct_parts]),
            (constant, activations, weights),
            parse(Certificate, body["certificate"], str(path)),
            body["made_from"],
        )


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
    space: SearchSpace,
    genes: Genes,
    measurements: Sequence[Measurement],
    held_out: npt.NDArray[np.bool_],
    predicted: Vector,
    predicted_memory: Vector,
) -> Certificate:
    from scipy.stats import kendalltau

    latency, memory = _latency_and_memory(measurements)
    signed = (predicted / latency - 1)[held_out]
    error = np.abs(signed)
    tau = float(kendalltau(predicted[held_out], latency[held_out]).statistic)
    verdicts = [measurement.verdict.status for measurement in measurements]
    fastest, slowest = int(latency.argmin()), int(latency.argmax())
    ids = [architecture.id for architecture in space.decode(genes[[fastest, slowest]])]
    return Certificate(
        mape=float(error.mean()),
        p95=float(np.quantile(error, 0.95)),
        within_5_percent=float((error <= 0.05).mean()),
        within_10_percent=float((error <= 0.1).mean()),
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
