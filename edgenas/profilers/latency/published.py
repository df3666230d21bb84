"""Once-for-All's published latency tables: reading, checking, writing, and the latency table of a space from them.

The newer form of a key is MobileNetV3's: ``expand`` is the number of middle channels, ``se`` and ``hs`` say if there is
squeeze-excite and h-swish. The older form is ProxylessNAS's: ``expand`` is the ratio, ``se`` and ``hs`` are left out,
and ``Logits`` includes the pooling before it. Its entries may have the variance ``var`` instead of ``std``.
(mit-han-lab/once-for-all, arXiv 1908.09791; mit-han-lab/proxylessnas, arXiv 1812.00332.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgenas.errors import FormatError, UsageError
from edgenas.files import canonical_json_bytes, read_yaml, sha256_hex, write_bytes
from edgenas.profilers.latency.memory import MemoryModel
from edgenas.profilers.latency.table import LatencyTable
from edgenas.space import MobileNetV3, Part, ProxylessNAS, SearchSpace
from edgenas.space.blocks.inverted_residual import InvertedResidual
from edgenas.space.blocks.plain import GlobalPoolPart, LinearPart
from edgenas.space.parts import format_shape

_SUFFIXES = (".yaml", ".yml", ".json")
_FIELDS = ("count", "mean", "std")
_OLDER_FIELDS = ("count", "mean", "var")
_MAX_LISTED = 20

_NUMBER = "[1-9][0-9]{0,8}"
_SHAPE = rf"{_NUMBER}x{_NUMBER}x{_NUMBER}"
_KEY = re.compile(
    rf"(?:Conv|Conv_1|Conv_2|AvgPool2D)-input:{_SHAPE}-output:{_SHAPE}"
    rf"|Logits-input:{_SHAPE}-output:{_NUMBER}"
    rf"|expanded_conv-input:{_SHAPE}-output:{_SHAPE}-expand:{_NUMBER}-kernel:{_NUMBER}-stride:{_NUMBER}-idskip:[01]"
    r"(?:-se:[01]-hs:[01])?"
)
_STEM = re.compile("Conv-input:([0-9]+)x([0-9]+)x")
_NAMES = {"stem": "Conv", "final_expand": "Conv_1", "pool": "AvgPool2D", "feature_mix": "Conv_2"}
_OLDER_NAMES = {"stem": "Conv", "feature_mix": "Conv_1"}


@dataclass(frozen=True)
class Entry:
    """One line of a table: the number of measurements of a part, their mean and standard deviation in ms."""

    count: int
    mean_ms: float
    std_ms: float

    @property
    def coefficient_of_variation(self) -> float:
        """The coefficient of variation: standard deviation over mean, a fraction."""
        return self.std_ms / self.mean_ms


@dataclass(frozen=True)
class PublishedTables:
    """The published latency tables of one device: resolution in pixels -> key -> entry.

    Raises:
        FormatError: If a key is not one of a published table, or an entry is not above zero and finite; it lists
            the keys.
    """

    tables: Mapping[int, Mapping[str, Entry]]

    def __post_init__(self) -> None:
        for resolution, entries in self.tables.items():
            _check_entries(entries, f"table of {resolution} pixels")

    @property
    def resolutions(self) -> tuple[int, ...]:
        """The resolutions of the tables, ascending, pixels."""
        return tuple(sorted(self.tables))

    @classmethod
    def load(cls, path: Path) -> PublishedTables:
        """Read the table in a file, or the tables in all YAML and JSON files of a folder, each of one resolution.

        Names of files mean nothing: the resolution is that of the stem's entry.

        Raises:
            UsageError: If there is no file, or one cannot be read.
            FormatError: If a file is damaged, or two are of one resolution; it names the file and the keys.
        """
        files = [path]
        if path.is_dir():
            files = [each for each in sorted(path.glob("[!.]*")) if each.suffix.lower() in _SUFFIXES]
        if not files:
            raise UsageError(f"{path}: has no latency tables (files {', '.join(_SUFFIXES)}); give their folder")
        tables: dict[int, dict[str, Entry]] = {}
        origins: dict[int, Path] = {}
        for file in files:
            entries = _read_entries(file)
            resolution = _find_resolution(entries, file)
            if resolution in origins:
                raise FormatError(f"{file}: is of {resolution} pixels, as is {origins[resolution]}; move one away")
            tables[resolution], origins[resolution] = entries, file
        return cls(dict(sorted(tables.items())))

    def save(self, folder: Path) -> None:
        """Write the tables in the format of their publication, one file for each resolution."""
        import yaml

        for resolution, entries in self.tables.items():
            document = {
                key: dict(zip(_FIELDS, (entry.count, entry.mean_ms, entry.std_ms), strict=True))
                for key, entry in entries.items()
            }
            write_bytes(folder / _file_name(resolution), yaml.safe_dump(document, sort_keys=False).encode())

    def noisy_entries(self, limit: float = 0.1) -> list[tuple[int, str, float]]:
        """Return resolution, key and coefficient of variation of the entries with a coefficient above ``limit``."""
        return [
            (resolution, key, entry.coefficient_of_variation)
            for resolution, entries in self.tables.items()
            for key, entry in entries.items()
            if entry.coefficient_of_variation > limit
        ]

    def to_latency_table(self, space: SearchSpace, target: str) -> LatencyTable:
        """Return the latency table of ``space``: the latency of a network is the sum of its published entries.

        The table has no holdout report. Its memory is counted as activations plus weights.

        Raises:
            UsageError: For a family or a resolution without tables.
            FormatError: If the tables lack keys of the space; it lists them.
        """
        absent = [resolution for resolution in space.resolutions if resolution not in self.tables]
        if absent:
            raise UsageError(
                f"there are latency tables of resolutions {_join_some(map(str, self.resolutions))}, but none of"
                f" {_join_some(map(str, absent))}, which the space has; give the space the tables' resolutions"
            )
        number = {part.key: index for index, part in enumerate(space.distinct_parts)}
        part_ms = np.full((len(space.resolutions), len(number)), np.nan)
        missing = []
        for row, (resolution, keys) in enumerate(
            zip(space.resolutions, published_keys_by_resolution(space), strict=True)
        ):
            entries = self.tables[resolution]
            for part, key in keys.items():
                if key is not None and key not in entries:
                    missing.append(f"{key} at {resolution}")
                else:
                    part_ms[row, number[part]] = 0.0 if key is None else entries[key].mean_ms
        if missing:
            raise FormatError(
                f"the latency tables miss {len(missing)} entries that the space needs: {_join_some(missing)};"
                " give the width and the choices that they were made for (--width, --choices), or complete them"
            )
        source = f"published tables of {_join_some(map(str, self.resolutions))} pixels; nothing was measured here"
        return LatencyTable(space, target, 0.0, part_ms, MemoryModel.with_unit_costs(space), None, self._digest, source)

    @property
    def _digest(self) -> str:
        content = {
            str(resolution): {key: [entry.count, entry.mean_ms, entry.std_ms] for key, entry in entries.items()}
            for resolution, entries in self.tables.items()
        }
        return sha256_hex(canonical_json_bytes(content))[:16]


def _read_entries(path: Path) -> dict[str, Entry]:
    document = read_yaml(path)
    if not isinstance(document, dict) or not document:
        raise FormatError(f"{path}: a latency table must be a mapping from keys to count, mean and std; correct it")
    wrong = [str(key) for key, value in document.items() if not _has_entry_types(value)]
    if wrong:
        raise FormatError(
            f"{path}: an entry must have a whole number count and numbers mean and std (or var) and nothing else, but"
            f" {len(wrong)} have not: {_join_some(wrong)}; correct them, or move away what is no latency table"
        )
    entries = {
        str(key): Entry(value["count"], float(value["mean"]), _standard_deviation(value))
        for key, value in document.items()
    }
    _check_entries(entries, str(path))
    return entries


def _has_entry_types(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) not in (set(_FIELDS), set(_OLDER_FIELDS)):
        return False
    numbers = [value[name] for name in value if name != "count"]
    # A larger whole number may be too large for a float.
    are_numbers = all(type(each) is float or (type(each) is int and abs(each) < 2**53) for each in numbers)
    return are_numbers and type(value["count"]) is int


def _standard_deviation(value: Mapping[str, float]) -> float:
    """Return the standard deviation of an entry in ms; NaN for a variance that has none."""
    if "std" in value:
        return float(value["std"])
    return math.sqrt(value["var"]) if value["var"] >= 0 else math.nan


def _check_entries(entries: Mapping[str, Entry], where: str) -> None:
    unknown = [key for key in entries if not is_published_key(key)]
    wrong = [key for key, entry in entries.items() if not _is_valid(entry)]
    if unknown:
        raise FormatError(f"{where}: has {len(unknown)} unknown keys: {_join_some(unknown)}; correct them")
    if wrong:
        raise FormatError(
            f"{where}: count and mean must be above 0, std (or var) 0 or more, and all finite, but"
            f" {len(wrong)} entries are not: {_join_some(wrong)}; measure these again"
        )


def _is_valid(entry: Entry) -> bool:
    return entry.count > 0 and 0 < entry.mean_ms < math.inf and 0 <= entry.std_ms < math.inf


def _find_resolution(entries: Mapping[str, Entry], path: Path) -> int:
    """Return the height and width in pixels of the image that the stem reads."""
    stems = {match.groups(): match[0] for match in map(_STEM.match, entries) if match}
    if len(stems) != 1:
        found = f"these begin {_join_some(stems.values())}" if stems else "there is none"
        raise FormatError(
            f"{path}: must have Conv-input:HxWx3-output:... of one resolution, which is the table's, but {found};"
            " give one file for each resolution"
        )
    ((height, width),) = stems
    if height != width:
        raise FormatError(f"{path}: must be of square images, but its stem reads {height}x{width}; leave it out")
    return int(height)


def _file_name(resolution: int) -> str:
    return f"{resolution}_lookup_table.yaml"


def _join_some(items: Iterable[str]) -> str:
    words = list(items)
    rest = len(words) - _MAX_LISTED
    return ", ".join(words[:_MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def is_published_key(text: str) -> bool:
    """Return True if ``text`` has the form of a published table's key, newer or older."""
    return _KEY.fullmatch(text) is not None


def published_keys_by_resolution(space: SearchSpace) -> list[dict[str, str | None]]:
    """Return, for each resolution of a space, the published key for each part's own key.

    The key is None for the pooling of an older table, which ``Logits`` includes.

    Raises:
        UsageError: For a family without published keys.
    """
    if not isinstance(space, MobileNetV3 | ProxylessNAS):
        raise UsageError(
            f"published latency tables are of the families {MobileNetV3.family} and {ProxylessNAS.family},"
            f" but the space is of {space.family}; profile a device instead"
        )
    older, count = isinstance(space, ProxylessNAS), len(space.resolutions)
    pools = next(slot.parts for slot in space.slots if slot.name == "pool")
    last_sizes = [part.in_shape[1] for part in pools if part is not None]
    keys: list[dict[str, str | None]] = [{} for _ in space.resolutions]
    for slot in space.slots:
        choices = len(slot.parts) // count  # the resolution is the first gene of every place and varies slowest
        for row, part in dict.fromkeys((index // choices, part) for index, part in enumerate(slot.parts)):
            if part is not None:
                keys[row][part.key] = _published_key_or_none(slot.name, part, last_sizes[row], older=older)
    return keys


def _published_key_or_none(place: str, part: Part, last_size: int, *, older: bool) -> str | None:
    """Return the key of the part at a place; ``last_size`` is that of the feature map before the pooling, pixels."""
    shapes = f"input:{format_shape(part.in_shape)}-output:{format_shape(part.out_shape)}"
    if isinstance(part, InvertedResidual):
        expand = part.mid_channels // part.in_channels if older else part.mid_channels
        key = f"expanded_conv-{shapes}-expand:{expand}-kernel:{part.kernel}-stride:{part.stride}"
        key += f"-idskip:{part.shortcut:d}"
        return key if older else f"{key}-se:{part.se_channels > 0:d}-hs:{part.activation == 'hswish':d}"
    if isinstance(part, LinearPart):
        size = last_size if older else 1
        return f"Logits-input:{format_shape((part.in_channels, size, size))}-output:{part.out_channels}"
    if older and isinstance(part, GlobalPoolPart):
        return None
    return f"{(_OLDER_NAMES if older else _NAMES)[place]}-{shapes}"
