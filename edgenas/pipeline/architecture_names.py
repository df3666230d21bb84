"""Naming an architecture on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgenas.errors import UsageError
from edgenas.files import read_yaml
from edgenas.space import Architecture, SearchSpace


def resolve_architecture(space: SearchSpace, text: str) -> Architecture:
    """``min``, ``max``, an id, or the path of a JSON file: edgenas's own, or Once-for-All's {"ks", "e", "d", "r"}
    (ResNet: "d", "e", "w", "r").

    Raises UsageError, saying what it may be, for anything else.
    """
    if text == "min":
        return space.smallest
    if text == "max":
        return space.largest
    if not text.endswith((".json", ".yaml", ".yml")):
        return space.from_id(text)
    data = read_yaml(Path(text))
    if not isinstance(data, Mapping):
        raise UsageError(
            f"{text}: an architecture must be a JSON object with 'resolution' and 'stages', or 'ks', 'e', 'd', 'r'"
        )
    if "d" in data and "e" in data:
        return _from_ofa(space, data, text)
    return space.from_description(data, text)


def _from_ofa(space: SearchSpace, data: Mapping[str, object], where: str) -> Architecture:
    lists = {key: value for key, value in data.items() if key != "r"}
    resolution = data.get("r", space.resolutions[-1])
    if isinstance(resolution, list) and len(resolution) == 1:
        resolution = resolution[0]
    if not isinstance(resolution, int):
        raise UsageError(f"{where}: 'r' must be the resolution in pixels, but got {resolution!r}")
    return space.from_ofa(lists, resolution, where)
