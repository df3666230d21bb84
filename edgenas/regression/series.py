"""Series of comparable checks of a history, and the places where their latency changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from edgenas.regression.history import HistoryEntry
from edgenas.regression.picture import draw_line
from edgenas.units import format_change, format_ms

_FEWEST = 3  # entries on each side of a change point
_NEAR = 2  # entries by which noise moves a change point
_SHOWN = 100  # of the latest checks, in a line of text
_PENALTY = 4.0  # of a change point, for each unit of the logarithm of the length


def find_change_points(values: Sequence[float]) -> list[int]:
    """Return the places, from 1 on, where the level of a series of latencies changes: the first entry of each new one.

    PELT (R. Killick, P. Fearnhead and I. Eckley, Optimal detection of changepoints with a linear computational cost,
    JASA 107 (2012) 1590) by ruptures, with the sum of absolute deviations from the median of each part as the cost,
    so that a single outlier is no change. The noise is that of the differences between neighbours.
    """
    import ruptures

    logs = np.log(np.asarray(values, dtype=np.float64))
    if len(logs) < 2 * _FEWEST:
        return []
    noise = max(float(np.median(np.abs(np.diff(logs)))) / 0.9539, 1e-3)  # of a normal variable's differences
    pelt = ruptures.Pelt(model="l1", min_size=_FEWEST, jump=1).fit(logs[:, None] / noise)
    places: list[int] = pelt.predict(pen=_PENALTY * float(np.log(len(logs))))[:-1]
    return places


@dataclass(frozen=True)
class Series:
    """The measured latencies of one check over time, on one target under one fingerprint.

    Attributes:
        name: the check's name.
        entries: in the order of time, each with a latency; none where nothing was measured.
        changes: the places where the level changed, from 1 on.
    """

    name: str
    entries: tuple[HistoryEntry, ...]
    changes: tuple[int, ...]

    @property
    def values_ms(self) -> list[float]:
        """The median latencies, ms."""
        return [entry.now_ms for entry in self.entries if entry.now_ms is not None]

    @property
    def conditions(self) -> str:
        """The target and the fingerprint that its entries have in common."""
        return f"{self.entries[-1].target}, fingerprint {self.entries[-1].fingerprint}" if self.entries else ""

    def levels(self) -> list[tuple[int, int, float]]:
        """Return the first entry, the one after the last, and the median, ms, of each part between changes."""
        if not self.entries:
            return []
        ends = [0, *self.changes, len(self.entries)]
        return [(first, end, float(np.median(self.values_ms[first:end]))) for first, end in pairwise(ends)]

    def new_model_at(self, change: int) -> str | None:
        """Return the SHA-256 of the model that came with a change of the level, None where the model stayed the same.

        Noise moves a change point, so a model that is new two entries before or after it came with the change.
        """
        models = [entry.model_sha256 for entry in self.entries]
        near = range(max(1, change - _NEAR), min(len(models), change + _NEAR + 1))
        new = [place for place in near if models[place] != models[place - 1]]
        return models[min(new, key=lambda place: abs(place - change))] if new else None

    def lines(self) -> list[str]:
        """Return it as text: the series as bars, then a line for each change."""
        levels, values = self.levels(), self.values_ms
        if not values:
            return [f"{self.name}: nothing was measured"]
        first, last = self.entries[0].time, self.entries[-1].time
        checks = f"{len(values)} check{'s' * (len(values) != 1)}"
        lines = [
            f"{self.name}: {checks} from {first} to {last}, {format_ms(min(values))} to {format_ms(max(values))}"
            f" ({self.conditions})",
            f"  {draw_line(values[-_SHOWN:])}",
        ]
        for (_, _, before), (place, _, after) in pairwise(levels):
            new = self.new_model_at(place)
            cause = f"model {new[:12]}" if new else "the same model, so the board or its load changed"
            lines.append(
                f"  from {self.entries[place].time} on, {cause}: {format_ms(before)} became {format_ms(after)}"
                f" ({format_change(after / before)})"
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        levels = [
            {
                "from": self.entries[first].time,
                "model_sha256": self.entries[first].model_sha256,
                "same_model": self.new_model_at(first) is None if first else None,
                "median_ms": median,
            }
            for first, _, median in self.levels()
        ]
        return {"name": self.name, "levels": levels, "checks": [asdict(entry) for entry in self.entries]}


def make_series(entries: Iterable[HistoryEntry]) -> list[Series]:
    """Return the series of a history: entries of one name, target and fingerprint, since only those are comparable.

    Entries without a latency are left out, and incomparable ones: they are of another board or model family than the
    baseline. A name of which nothing is left has one empty series.

    Args:
        entries: in the order of time.
    """
    groups: dict[str, dict[tuple[str, str], list[HistoryEntry]]] = {}
    for entry in entries:
        group = groups.setdefault(entry.name, {})
        if entry.now_ms is not None and entry.outcome != "incomparable":
            group.setdefault((entry.target, entry.fingerprint), []).append(entry)
    found = []
    for name, group in groups.items():
        for part in group.values() or [[]]:
            changes = find_change_points([entry.now_ms for entry in part if entry.now_ms is not None])
            found.append(Series(name, tuple(part), tuple(changes)))
    return found
