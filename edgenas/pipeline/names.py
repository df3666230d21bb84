"""Targets and architectures of a run by the names that users give them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgenas.devices import Target, load_profile
from edgenas.errors import UsageError
from edgenas.files import read_yaml
from edgenas.pipeline.export_formats import format_of
from edgenas.pipeline.run_folder import RunFolder
from edgenas.runtimes import is_runtime
from edgenas.space import Architecture, SearchSpace


def resolve_target(
    folder: RunFolder, device: str | Path, runtime: str | None, threads: int | None, precision: str | None
) -> Target:
    """Return a target by its device's name: that of imported tables if the run has any, else a profile's.

    Raises UsageError, listing what exists, for an unknown name, runtime or
    precision, and for a precision that the runtime's files do not have.
    """
    imported = folder.device(str(device))
    is_imported = Path(device).name == str(device) and imported.exists()
    target = Target(load_profile(imported if is_imported else device, str(device)), runtime, precision, threads)
    if is_runtime(target.runtime):
        format_of(target)
    return target


def resolve_architecture(space: SearchSpace, text: str) -> Architecture:
    """Return an architecture by ``min``, ``max``, its id, or the path of a JSON file.

    The file holds edgenas's own form, or Once-for-All's ``{"ks", "e", "d", "r"}``
    (ResNet: ``"d", "e", "w", "r"``). Raises UsageError, listing the forms, for anything else.
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
        return _read_ofa_lists(space, data, text)
    return space.from_description(data, text)


def _read_ofa_lists(space: SearchSpace, data: Mapping[str, object], where: str) -> Architecture:
    lists = {key: value for key, value in data.items() if key != "r"}
    resolution = data.get("r", space.resolutions[-1])
    if isinstance(resolution, list) and len(resolution) == 1:
        resolution = resolution[0]
    if not isinstance(resolution, int):
        raise UsageError(f"{where}: 'r' must be the resolution in pixels, but got {resolution!r}")
    return space.from_ofa(lists, resolution, where)
