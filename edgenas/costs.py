"""What a cost model and a budget are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgenas.errors import UsageError
from edgenas.units import format_bytes, format_ms, parse_bytes, parse_ms

Genes = npt.NDArray[np.int64]
Vector = npt.NDArray[np.float64]
_ROWS = 2048  # architectures at once: what is computed for them stays in the cache


def apply_in_chunks(function: Callable[[Genes], Vector], genes: Genes) -> Vector:
    """``function`` of genes (N, G), (N,), some rows at a time; each row's value must depend on that row alone."""
    values = np.empty(len(genes))
    for first in range(0, len(genes), _ROWS):
        rows = slice(first, first + _ROWS)
        values[rows] = function(genes[rows])
    return values


class CostModel(Protocol):
    """One number for each architecture: a genes matrix (N, G) in, a vector (N,) out.

    The name says the unit (``latency_ms``, ``peak_bytes``). A cost model has no
    state that a call changes, and never loops over architectures.
    """

    def __call__(self, genes: Genes, /) -> Vector: ...


@dataclass(frozen=True)
class Budget:
    """Limits with units, given as text: ``Budget(latency="1ms", memory="64MB")``.

    ``latency`` bounds the median latency of one inference; ``memory`` the peak
    memory of the measuring process above one without a model. Raises
    UsageError when a limit has no unit or is not positive.
    """

    latency: str | None = None
    memory: str | None = None

    def __post_init__(self) -> None:
        if self.latency is None and self.memory is None:
            raise UsageError('a budget needs a limit, for example latency="15ms" or memory="64MB"')
        self.latency_ms, self.memory_bytes  # noqa: B018 - both are parsed here, so that a wrong one fails early

    @property
    def latency_ms(self) -> float:
        """The latency limit in milliseconds; infinite when there is none."""
        return float("inf") if self.latency is None else parse_ms(self.latency, "latency budget")

    @property
    def memory_bytes(self) -> float:
        """The memory limit in bytes; infinite when there is none."""
        return float("inf") if self.memory is None else float(parse_bytes(self.memory, "memory budget"))

    def __str__(self) -> str:
        limits = []
        if self.latency is not None:
            limits.append(f"latency {format_ms(self.latency_ms)}")
        if self.memory is not None:
            limits.append(f"memory {format_bytes(self.memory_bytes)}")
        return ", ".join(limits)
