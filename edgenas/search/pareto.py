"""The Pareto front of a search: its architectures with their predicted costs, and its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from annotated_types import MinLen

from edgenas.costs import Genes, Vector
from edgenas.errors import FormatError, RunError, SpaceError
from edgenas.files import Amount, Count, Fraction, Schema, ShortText, rename_keys
from edgenas.registry import DEFAULT_STRATEGY
from edgenas.space import Architecture, SearchSpace
from edgenas.units import format_ms

FRONT_SCHEMA = Schema("front", 2, {1: lambda body: {**rename_keys(body, {"made_from": "inputs_digest"})}})


def nondominated_mask(costs: Vector) -> npt.NDArray[np.bool_]:
    """Return the mask (N,) of the rows of ``costs`` (N, M) that no other row dominates.

    All costs are minimised. Of equal rows all are kept.
    """
    keep = np.ones(len(costs), dtype=bool)
    for index in np.argsort(costs.sum(axis=1), kind="stable"):
        if keep[index]:
            dominated = (costs >= costs[index]).all(axis=1) & (costs > costs[index]).any(axis=1)
            keep &= ~dominated
    return keep


@dataclass(frozen=True)
class _FrontData:
    """The keys of a front's file."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    inputs_digest: ShortText
    space: ShortText
    target: ShortText
    evaluations: Count
    source: ShortText
    architectures: Annotated[list[str], MinLen(1)]
    accuracy: list[Fraction]
    latency_ms: list[Amount]
    peak_bytes: list[Amount]
    strategy: ShortText = DEFAULT_STRATEGY

    def __post_init__(self) -> None:
        number = len(self.architectures)
        if {len(self.accuracy), len(self.latency_ms), len(self.peak_bytes)} != {number}:
            raise FormatError(f"accuracy, latency_ms and peak_bytes must have one number for each of {number} subnets")
        if len(set(self.architectures)) < number:
            raise FormatError("architectures must name no subnet twice")
        if sorted(self.latency_ms) != self.latency_ms:
            raise FormatError("latency_ms must ascend")


@dataclass(frozen=True, eq=False, repr=False)
class Front:
    """The Pareto front of a search by ascending latency. All its costs are predicted.

    Args:
        space: The space that was searched.
        target: The name of the target that the costs belong to.
        genes: The architectures, (N, G).
        accuracy: Their accuracy, (N,), 0 to 1.
        latency_ms: Their median latency of one inference, (N,).
        peak_bytes: The peak memory that each adds to a process, (N,).
        evaluations: The number of architectures that the search evaluated.
        inputs_digest: The digest of everything that the search used; another digest means that the front is outdated.
        source: What the costs come from where they are not measurements of the same run, else empty. Such latencies
            are sums of published means, and their memory is counted.
        strategy: The name of the strategy that searched.

    Example:
        >>> import numpy as np
        >>> from edgenas import Front, MobileNetV3
        >>> space = MobileNetV3(width=0.5)
        >>> genes = space.encode([space.smallest, space.largest])
        >>> costs = np.array([[0.71, 0.78], [0.21, 0.48], [8e6, 21e6]])
        >>> Front(space, "my-board-onnxruntime-fp32-1t", genes, *costs, evaluations=2, inputs_digest="")
        Front(2 subnets, 0.210 to 0.480 ms, my-board-onnxruntime-fp32-1t)
    """

    space: SearchSpace
    target: str
    genes: Genes
    accuracy: Vector
    latency_ms: Vector
    peak_bytes: Vector
    evaluations: int
    inputs_digest: str
    source: str = ""
    strategy: str = DEFAULT_STRATEGY

    def __len__(self) -> int:
        return len(self.genes)

    def __repr__(self) -> str:
        if not len(self):
            return f"Front(0 subnets, {self.target})"
        fastest, slowest = format_ms(self.latency_ms.min()).removesuffix(" ms"), format_ms(self.latency_ms.max())
        return f"Front({len(self)} subnets, {fastest} to {slowest}, {self.target})"

    def architectures(self) -> list[Architecture]:
        """Return the architectures in the front's order."""
        return self.space.decode(self.genes)

    def save(self, path: str | Path) -> None:
        """Write the front as a JSON document."""
        body: dict[str, Any] = {
            "inputs_digest": self.inputs_digest,
            "space": self.space.short_hash,
            "target": self.target,
            "evaluations": self.evaluations,
            "source": self.source,
            # Without NSGA-II's name, as before there were others: a choice holds the digest of this file.
            **({} if self.strategy == DEFAULT_STRATEGY else {"strategy": self.strategy}),
            "architectures": [architecture.id for architecture in self.architectures()],
            "accuracy": self.accuracy.tolist(),
            "latency_ms": self.latency_ms.tolist(),
            "peak_bytes": self.peak_bytes.tolist(),
        }
        FRONT_SCHEMA.write(Path(path), body)

    @classmethod
    def load(cls, path: str | Path, space: SearchSpace) -> Front:
        """Return the front that ``save`` wrote.

        Raises FormatError when the file is damaged, RunError when the front belongs to another space.
        """
        try:
            data = FRONT_SCHEMA.read_as(_FrontData, Path(path))
            if data.space != space.short_hash:
                raise RunError(f"{path}: is of space {data.space}, not of {space.short_hash}; search again")
            genes = space.encode([space.from_id(text) for text in data.architectures])
        except SpaceError as error:
            raise FormatError(f"{path}: {error}; search again") from None
        return cls(
            space,
            data.target,
            genes,
            np.array(data.accuracy, dtype=np.float64),
            np.array(data.latency_ms, dtype=np.float64),
            np.array(data.peak_bytes, dtype=np.float64),
            data.evaluations,
            data.inputs_digest,
            data.source,
            data.strategy,
        )
