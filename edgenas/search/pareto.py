"""Fronts: which architectures are worth having."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.costs import Genes, Vector
from edgenas.errors import RunError
from edgenas.files import read_document, write_document
from edgenas.space import Architecture, SearchSpace

_KIND, _VERSION = "front", 1


def nondominated_mask(costs: Vector) -> npt.NDArray[np.bool_]:
    """Mask (N,) of the rows of ``costs`` (N, M) that no other row beats; all are minimised, equal rows are kept."""
    keep = np.ones(len(costs), dtype=bool)
    for index in np.argsort(costs.sum(axis=1), kind="stable"):
        if keep[index]:
            beaten = (costs >= costs[index]).all(axis=1) & (costs > costs[index]).any(axis=1)
            keep &= ~beaten
    return keep


@dataclass(frozen=True, eq=False)
class Front:
    """The Pareto set of a search, predicted, by ascending latency.

    ``genes`` (N, G); ``accuracy`` (N,) in 0..1; ``latency_ms`` (N,) the median
    of one inference; ``peak_bytes`` (N,) of the process above one without a
    model; ``target`` the name of what the costs belong to; ``evaluations`` how
    many architectures the search looked at; ``inputs_digest`` which inputs it belongs
    to. ``source`` says what of it is not from measurements of this run's own:
    then latencies are sums of published means, and memory is counted.
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

    def __len__(self) -> int:
        return len(self.genes)

    def architectures(self) -> list[Architecture]:
        """The architectures, in the front's order."""
        return self.space.decode(self.genes)

    def save(self, path: Path) -> None:
        """Write the front as a JSON document."""
        body: dict[str, Any] = {
            "inputs_digest": self.inputs_digest,
            "space": self.space.short_hash,
            "target": self.target,
            "evaluations": self.evaluations,
            "source": self.source,
            "architectures": [architecture.id for architecture in self.architectures()],
            "accuracy": self.accuracy.tolist(),
            "latency_ms": self.latency_ms.tolist(),
            "peak_bytes": self.peak_bytes.tolist(),
        }
        write_document(path, _KIND, _VERSION, body)

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> Front:
        """Read a front of ``space``; raises FormatError when it is damaged, RunError when it is of another space."""
        body = read_document(path, _KIND, _VERSION)
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
        )
