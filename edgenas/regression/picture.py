"""A small picture of two distributions in text, which shows wherever text does: terminals, logs, pull requests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgenas.units import format_ms

_LEVELS = " ▁▂▃▄▅▆▇█"
_BINS = 48
_TAIL = 5.0  # percent at each end that may lie outside; a few slow processes would squeeze the rest together


def draw_distributions(then: Sequence[float], now: Sequence[float]) -> list[str]:
    """Return lines with the distributions of latencies in ms, above one axis; ``then`` may be empty.

    A process outside of the axis, which leaves out the tails, counts at its end.
    """
    values = [*then, *now]
    if not values:
        return []
    low, high = np.percentile(values, [_TAIL, 100 - _TAIL])
    margin = 0.05 * (high - low) or 0.01 * low
    edges = np.linspace(low - margin, high + margin, _BINS + 1)
    rows = [("was", then), ("now", now)] if then else [("now", now)]
    lines = [f"{name} │{_draw_bars(each, edges)}│ median {format_ms(float(np.median(each)))}" for name, each in rows]
    ends = format_ms(float(edges[0])), format_ms(float(edges[-1]))
    return [*lines, f"     {ends[0]}{ends[1]:>{_BINS - len(ends[0])}}"]


def draw_line(values: Sequence[float]) -> str:
    """Return a series as one line of bars, the lowest value lowest."""
    low, high = min(values), max(values)
    steps = [round((value - low) / ((high - low) or 1) * (len(_LEVELS) - 2)) for value in values]
    return "".join(_LEVELS[1 + step] for step in steps)


def _draw_bars(values: Sequence[float], edges: np.ndarray) -> str:
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    heights = np.ceil(counts / max(1, counts.max()) * (len(_LEVELS) - 1)).astype(int)
    return "".join(_LEVELS[height] for height in heights)
