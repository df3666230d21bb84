"""What the intervals of a latency table are made from, as its file holds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Interval, MinLen

from edgenas.costs import Genes
from edgenas.errors import FormatError
from edgenas.files import parse
from edgenas.profilers.latency.fit import PartCosts, remembered, restored_parts
from edgenas.profilers.latency.gaussian_process import PartProcess
from edgenas.profilers.measure.protocol import Amount, Number
from edgenas.space import SearchSpace

_KNOWN_ONLY: dict[str, Any] = {"extra": "forbid", "allow_inf_nan": False}
_Latency = Annotated[float, Interval(ge=1e-9, le=1e15)]
_Weight = Annotated[float, Interval(ge=1e-15, le=1)]


@dataclass(frozen=True)
class _Costs:
    __pydantic_config__: ClassVar[dict[str, Any]] = _KNOWN_ONLY

    overhead_ms: Amount
    parts_ms: list[Amount]


@dataclass(frozen=True)
class _Inferred:
    __pydantic_config__: ClassVar[dict[str, Any]] = _KNOWN_ONLY

    architectures: Annotated[list[str], MinLen(1)]
    others: list[_Costs]
    latency_ms: list[_Latency]
    at_s: list[Number]
    weights: list[_Weight]
    variances: dict[str, Amount]
    transfer_weight: Annotated[float, Interval(ge=0, le=1)]


def posterior_to_dict(
    space: SearchSpace, process: PartProcess, genes: Genes, others: Sequence[PartCosts]
) -> dict[str, Any]:
    """A process that was fitted to genes (N, G), and the other targets' costs that it was given, as plain data."""
    subnets = [architecture.id for architecture in space.decode(genes)]
    costs = [{"overhead_ms": each.overhead_ms, "parts_ms": each.part_ms.tolist()} for each in others]
    return {"architectures": subnets, "others": costs, **remembered(process)}


def posterior_from_dict(space: SearchSpace, data: Any) -> tuple[PartProcess, Genes, tuple[PartCosts, ...]]:
    """The inverse of ``posterior_to_dict``: process, genes and the others' costs.

    Raises UsageError or a kind of it for whatever does not fit together.
    """
    found = parse(_Inferred, data, "posterior")
    count = len(found.architectures)
    for name in ("latency_ms", "at_s", "weights"):
        _check_length(name, len(getattr(found, name)), count, "subnets")
    for each in found.others:
        _check_length("parts_ms of others", len(each.parts_ms), len(space.distinct_parts), "parts")
    genes = space.encode([space.from_id(text) for text in found.architectures])
    others = tuple(PartCosts(each.overhead_ms, np.array(each.parts_ms, dtype=np.float64)) for each in found.others)
    process = restored_parts(space, genes, asdict(found), others)
    if wrong := sorted(set(process.variances) ^ set(process.terms)):
        raise FormatError(
            f"inferred: strengths must be those of {', '.join(process.terms)}, but {', '.join(wrong)} are not of both"
        )
    return process, genes, others


def _check_length(name: str, found: int, due: int, of: str) -> None:
    if found != due:
        raise FormatError(f"inferred: {name} must have a number for each of {due} {of}, but has {found}")
