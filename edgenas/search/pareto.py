"""The Pareto front of a search: its architectures with their predicted costs, and its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.costs import Genes, Vector
from edgenas.errors import RunError
from edgenas.files import Schema, rename_keys
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
        body = FRONT_SCHEMA.read(Path(path))
        if body["space"] != space.short_hash:
            raise RunError(f"{path}: is of space {body['space']}, not of {space.short_hash}; search again")
        return cls(
            space,
            body["target"],
            space.encode([space.from_id(text) for text in body["architectures"]]),
            np.array(body["accuracy"], dtype=np.float64),
            np.array(body["latency_ms"], dtype=np.float64),
            np.array(body["peak_bytes"], dtype=np.float64),
            body["evaluations"],
            body["inputs_digest"],
            body["source"],
            body.get("strategy", DEFAULT_STRATEGY),
        )
