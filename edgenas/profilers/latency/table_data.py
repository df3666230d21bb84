"""The contents of a latency table's file as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Interval, MinLen

from edgenas.costs import Genes, Vector
from edgenas.errors import FormatError
from edgenas.files import Amount, Milliseconds, Number, ShortText, parse_dataclass
from edgenas.profilers.latency.drift import Moments
from edgenas.profilers.latency.fit import PartCosts, fit_part_costs, part_process_from_dict, part_process_to_dict
from edgenas.profilers.latency.gaussian_process import PartProcess
from edgenas.profilers.latency.holdout import HoldoutReport
from edgenas.space import SearchSpace

_STRICT: dict[str, Any] = {"extra": "forbid", "allow_inf_nan": False}
_Latency = Annotated[float, Interval(ge=1e-9, le=1e15)]
_Weight = Annotated[float, Interval(ge=1e-15, le=1)]
_PartCostData = float | list[float | None]
_LARGEST_MS = 1e15


@dataclass(frozen=True)
class TableData:
    """The keys of a table's file; ``memory``, ``curve`` and ``posterior`` are parsed apart from it."""

    inputs_digest: ShortText
    target: ShortText
    source: ShortText
    holdout: HoldoutReport | None
    overhead_ms: Amount
    parts_ms: dict[str, _PartCostData | None]
    memory: dict[str, Any]
    curve: dict[str, Any] | None
    posterior: dict[str, Any] | None


def costs_to_list(part_ms: Vector) -> list[Any]:
    """Return a JSON value for each part: a number, or a list with one number a resolution, null where it is NaN."""
    if part_ms.ndim == 1:
        return list(part_ms.tolist())
    return [[None if np.isnan(cost) else cost for cost in costs] for costs in part_ms.T.tolist()]


def costs_from_dict(space: SearchSpace, parts: Mapping[str, _PartCostData | None]) -> Vector:
    """Return the costs of ``costs_to_list`` in the order of ``space.distinct_parts``; raise FormatError."""
    keys = [part.key for part in space.distinct_parts]
    missing = [key for key in keys if not _is_cost(parts.get(key))]
    if missing:
        raise FormatError(f"has no cost for {len(missing)} parts, the first is {missing[0]}")
    costs = [parts[key] for key in keys]
    lengths = {len(cost) if isinstance(cost, list) else 0 for cost in costs}
    if lengths not in ({0}, {len(space.resolutions)}):
        raise FormatError("parts_ms must have a number a part, or one for each resolution")
    return np.array(costs, dtype=np.float64).T


def _is_cost(value: _PartCostData | None) -> bool:
    numbers = [cost for cost in (value if isinstance(value, list) else [value]) if cost is not None]
    return bool(numbers) and min(numbers) >= 0 and max(numbers) <= _LARGEST_MS


@dataclass(frozen=True)
class _SourceCostsData:
    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    overhead_ms: Amount
    parts_ms: list[Amount]


@dataclass(frozen=True)
class _PosteriorData:
    """The keys of the file; ``others`` are the source costs."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    architectures: Annotated[list[str], MinLen(1)]
    others: list[_SourceCostsData]
    latency_ms: list[_Latency]
    at_s: list[Number]
    probe_ms: list[Milliseconds | None]
    weights: list[_Weight]
    variances: dict[str, Amount] | None
    transfer_weight: Annotated[float, Interval(ge=0, le=1)]


def posterior_to_dict(
    space: SearchSpace, process: PartProcess, genes: Genes, source_costs: Sequence[PartCosts]
) -> dict[str, Any]:
    """Return a process, the genes (N, G) that it was fitted to and its source costs as plain data."""
    subnets = [architecture.id for architecture in space.decode(genes)]
    others = [{"overhead_ms": costs.overhead_ms, "parts_ms": costs.part_ms.tolist()} for costs in source_costs]
    return {"architectures": subnets, "others": others, **part_process_to_dict(process)}


def posterior_from_dict(space: SearchSpace, data: Any) -> tuple[PartProcess, Genes, tuple[PartCosts, ...]]:
    """Return the process, genes and source costs of ``posterior_to_dict``.

    Raises:
        UsageError: If types, lengths, names or values are wrong.
    """
    parsed = parse_dataclass(_PosteriorData, data, "posterior")
    count = len(parsed.architectures)
    for name in ("latency_ms", "at_s", "probe_ms", "weights"):
        _check_length(name, len(getattr(parsed, name)), count, "subnets")
    for costs in parsed.others:
        _check_length("parts_ms of others", len(costs.parts_ms), len(space.distinct_parts), "parts")
    genes = space.encode([space.from_id(text) for text in parsed.architectures])
    source_costs = tuple(
        PartCosts(costs.overhead_ms, np.array(costs.parts_ms, dtype=np.float64)) for costs in parsed.others
    )
    if parsed.variances is None:  # of an earlier version
        moments = Moments.at(np.array(parsed.at_s))
        return fit_part_costs(space, genes, np.array(parsed.latency_ms), moments, source_costs), genes, source_costs
    process = part_process_from_dict(space, genes, asdict(parsed), source_costs)
    if wrong := sorted(set(process.variances) ^ set(process.term_names)):
        raise FormatError(
            f"posterior: variances must be those of {', '.join(process.term_names)},"
            f" but {', '.join(wrong)} are not of both"
        )
    return process, genes, source_costs


def _check_length(name: str, length: int, expected: int, of: str) -> None:
    if length != expected:
        raise FormatError(f"posterior: {name} must have a number for each of {expected} {of}, but has {length}")
