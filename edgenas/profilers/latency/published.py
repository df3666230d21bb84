"""Once-for-All's published latency tables: read, checked, written back, and made into a space's latency table."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgenas.errors import FormatError, UsageError
from edgenas.files import canonical_json, digest, read_yaml, write_bytes
from edgenas.profilers.latency.memory import MemoryModel
from edgenas.profilers.latency.published_keys import is_published_key, published_keys
from edgenas.profilers.latency.table import LatencyTable
from edgenas.space import SearchSpace

_NAME = re.compile(r"([1-9]\d*)_lookup_table\.yaml")
_FIELDS = ("count", "mean", "std")
_LISTED = 20


@dataclass(frozen=True)
class Entry:
    """One line of a table: how often a part was measured, the mean in ms, the standard deviation in ms."""

    count: int
    mean_ms: float
    std_ms: float

    @property
    def variation(self) -> float:
        """The coefficient of variation: standard deviation over mean, a fraction."""
        return self.std_ms / self.mean_ms


@dataclass(frozen=True)
class PublishedTables:
    """The published latency tables of one device: resolution in pixels -> key -> entry.

    Raises FormatError, listing the keys, where a key is none of a published
    table's or an entry is not above zero and finite.
    """

    tables: Mapping[int, Mapping[str, Entry]]

    def __post_init__(self) -> None:
        for resolution, entries in self.tables.items():
            unknown = [key for key in entries if not is_published_key(key)]
            wrong = [key for key, entry in entries.items() if not _is_sound(entry)]
            if unknown:
                raise FormatError(
                    f"{_file_name(resolution)}: has {len(unknown)} unknown keys: {_listed(unknown)}; correct them"
                )
            if wrong:
                raise FormatError(
                    f"{_file_name(resolution)}: count and mean must be above 0, std 0 or more, and all finite, but"
                    f" {len(wrong)} entries are not: {_listed(wrong)}; measure these again"
                )

    @property
    def resolutions(self) -> tuple[int, ...]:
        """The resolutions that there are tables for, ascending, pixels."""
        return tuple(sorted(self.tables))

    @classmethod
    def load(cls, folder: Path) -> PublishedTables:
        """Read every ``RESOLUTION_lookup_table.yaml`` of a folder. Raises FormatError naming the file and the keys."""
        paths = sorted(folder.glob("*_lookup_table.yaml"))
        if not paths:
            raise UsageError(f"{folder}: has no latency tables; they are called 224_lookup_table.yaml by resolution")
        tables = {}
        for path in paths:
            match = _NAME.fullmatch(path.name)
            if match is None:
                raise FormatError(f"{path}: its name must begin with the resolution, as 224_lookup_table.yaml does")
            tables[int(match.group(1))] = _read(path)
        try:
            return cls(dict(sorted(tables.items())))
        except FormatError as error:
            raise FormatError(f"{folder}/{error}") from None

    def save(self, folder: Path) -> None:
        """Write the tables in the format that they were published in, one file a resolution."""
        import yaml

        for resolution, entries in self.tables.items():
            document = {
                key: dict(zip(_FIELDS, (entry.count, entry.mean_ms, entry.std_ms), strict=True))
                for key, entry in entries.items()
            }
            write_bytes(folder / _file_name(resolution), yaml.safe_dump(document, sort_keys=False).encode())

    def noisy(self, limit: float = 0.1) -> list[tuple[int, str, float]]:
        """Resolution, key and coefficient of variation of every entry whose coefficient is above ``limit``."""
        return [
            (resolution, key, entry.variation)
            for resolution, entries in self.tables.items()
            for key, entry in entries.items()
            if entry.variation > limit
        ]

    def to_table(self, space: SearchSpace, target: str) -> LatencyTable:
        """The latency table of ``space``: each network costs exactly the sum of its published entries.

        Entries are means, and nothing was held out: there is no certificate.
        Memory is not in the tables; it is counted as activations plus weights.
        Raises UsageError for a family or resolution that there are no tables
        of, and FormatError listing the keys that the space needs and the
        tables miss.
        """
        absent = [resolution for resolution in space.resolutions if resolution not in self.tables]
        if absent:
            raise UsageError(
                f"there are latency tables of resolutions {_listed(map(str, self.resolutions))}, but none of"
                f" {_listed(map(str, absent))}, which the space has; give the space the tables' resolutions"
            )
        number = {part.key: index for index, part in enumerate(space.distinct_parts)}
        part_ms = np.full((len(space.resolutions), len(number)), np.nan)
        missing = []
        for row, (resolution, keys) in enumerate(zip(space.resolutions, published_keys(space), strict=True)):
            entries = self.tables[resolution]
            for part, key in keys.items():
                if key is not None and key not in entries:
                    missing.append(f"{key} at {resolution}")
                else:
                    part_ms[row, number[part]] = 0.0 if key is None else entries[key].mean_ms
        if missing:
            raise FormatError(
                f"the latency tables miss {len(missing)} entries that the space needs: {_listed(missing)};"
                " give the width that they were made for, or complete them"
            )
        source = f"published tables of {_listed(map(str, self.resolutions))} pixels; nothing was measured here"
        return LatencyTable(space, target, 0.0, part_ms, MemoryModel.counted(space), None, self._digest, source)

    @property
    def _digest(self) -> str:
        content = {
            str(resolution): {key: [entry.count, entry.mean_ms, entry.std_ms] for key, entry in entries.items()}
            for resolution, entries in self.tables.items()
        }
        return digest(canonical_json(content))[:16]


def _read(path: Path) -> dict[str, Entry]:
    document = read_yaml(path)
    if not isinstance(document, dict) or not document:
        raise FormatError(f"{path}: a latency table must be a mapping from keys to count, mean and std")
    wrong = [str(key) for key, value in document.items() if not _is_entry(value)]
    if wrong:
        raise FormatError(
            f"{path}: an entry must have a whole number count and numbers mean and std and nothing else, but"
            f" {len(wrong)} have not: {_listed(wrong)}; correct them"
        )
    return {
        str(key): Entry(value["count"], *(float(value[name]) for name in _FIELDS[1:]))
        for key, value in document.items()
    }


def _is_entry(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != set(_FIELDS):
        return False
    numbers = value["mean"], value["std"]
    # A whole number past this may be too large to become a float.
    sound = all(type(each) is float or (type(each) is int and abs(each) < 2**53) for each in numbers)
    return sound and type(value["count"]) is int


def _is_sound(entry: Entry) -> bool:
    positive = entry.count > 0 and 0 < entry.mean_ms < math.inf
    return positive and 0 <= entry.std_ms < math.inf


def _file_name(resolution: int) -> str:
    return f"{resolution}_lookup_table.yaml"


def _listed(items: Iterable[str]) -> str:
    words = list(items)
    rest = len(words) - _LISTED
    return ", ".join(words[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
