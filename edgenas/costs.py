"""Cost models of architectures, and budgets that limit their costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgenas.errors import UsageError
from edgenas.units import format_bytes, format_ms, parse_bytes, parse_ms

Genes = npt.NDArray[np.int64]
Vector = npt.NDArray[np.float64]
MEDIAN, _MOST_PERCENTILE = 50, 99
_CHUNK_ROWS = 2048  # few enough that the intermediate arrays of a chunk stay in the CPU's cache


def apply_in_chunks(
    function: Callable[[Genes], npt.NDArray[np.floating[Any]]], genes: Genes, chunk_rows: int = _CHUNK_ROWS
) -> Vector:
    """Return ``function`` of a genes matrix, computed some rows at a time.

    Args:
        function: Maps genes (M, G) to one value a row, (M,). Each value must depend on its own row alone.
        genes: The genes matrix, (N, G).
        chunk_rows: The rows of a chunk; a few thousand by default.

    Returns:
        The values, (N,).
    """
    values = np.empty(len(genes))
    for start in range(0, len(genes), chunk_rows):
        chunk = slice(start, start + chunk_rows)
        values[chunk] = function(genes[chunk])
    return values


class CostModel(Protocol):
    """A function that maps a genes matrix (N, G) to one number for each architecture, (N,).

    Its name says the unit (``latency_ms``, ``peak_bytes``). A call changes no
    state and does not loop over architectures.
    """

    def __call__(self, genes: Genes, /) -> Vector: ...


@dataclass(frozen=True)
class Budget:
    """Upper limits of latency and memory, as text with units.

    Args:
        latency: The limit of the median latency of one inference, for example ``"15ms"``.
        memory: The limit of the peak memory that the model adds to the measuring process, for example ``"64MB"``.
        percentile: The percentile of the single inferences that ``latency`` limits: 50 is the median, 90 leaves one
            inference in ten above it.

    Raises:
        UsageError: Both limits are absent, one has no unit or is not positive, or the percentile is not from 50 to 99.

    Example:
        >>> from edgenas import Budget
        >>> budget = Budget(latency="1ms", memory="64MB")
        >>> budget.latency_ms, budget.memory_bytes
        (1.0, 64000000.0)
        >>> print(budget)
        latency 1.00 ms, memory 64.0 MB
        >>> Budget(latency="15ms")
        Budget(latency='15ms')
    """

    latency: str | None = None
    memory: str | None = None
    percentile: int = MEDIAN

    def __post_init__(self) -> None:
        if self.latency is None and self.memory is None:
            raise UsageError("a budget needs a limit: a latency, for example 15ms, or a memory, for example 64MB")
        if not MEDIAN <= self.percentile <= _MOST_PERCENTILE:
            raise UsageError(
                f"percentile must be from {MEDIAN} (the median) to {_MOST_PERCENTILE}, but got {self.percentile}"
            )
        if self.percentile > MEDIAN and self.latency is None:
            raise UsageError(f"percentile {self.percentile} is of latencies: give a latency, for example 15ms")
        self.latency_ms, self.memory_bytes  # noqa: B018 - parses both, so that a wrong limit fails at once

    @property
    def latency_ms(self) -> float:
        """The latency limit in milliseconds; infinity without one."""
        return float("inf") if self.latency is None else parse_ms(self.latency, "latency budget")

    @property
    def memory_bytes(self) -> float:
        """The memory limit in bytes; infinity without one."""
        return float("inf") if self.memory is None else float(parse_bytes(self.memory, "memory budget"))

    @property
    def is_of_tail(self) -> bool:
        """Whether it limits a percentile above the median."""
        return self.percentile > MEDIAN

    def __repr__(self) -> str:
        limits: dict[str, str | int | None] = {"latency": self.latency, "memory": self.memory}
        if self.is_of_tail:
            limits["percentile"] = self.percentile
        return f"Budget({', '.join(f'{name}={limit!r}' for name, limit in limits.items() if limit is not None)})"

    def __str__(self) -> str:
        limits = []
        if self.latency is not None:
            tail = f" at percentile {self.percentile}" if self.is_of_tail else ""
            limits.append(f"latency {format_ms(self.latency_ms)}{tail}")
        if self.memory is not None:
            limits.append(f"memory {format_bytes(self.memory_bytes)}")
        return ", ".join(limits)
