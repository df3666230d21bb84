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

_OFA_KEYS = frozenset(("ks", "e", "d", "w", "image_size", "r"))


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

    The file holds edgenas's own form, or Once-for-All's: lists ``ks``, ``e``, ``d`` (ResNet: ``d``, ``e``, ``w``) and
    the resolution, ``image_size`` or ``r``. Raises UsageError, listing the known keys, for anything else.
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
            f"{text}: an architecture must be a JSON object with 'resolution' and 'stages',"
            " or 'ks', 'e', 'd' (ResNet: 'd', 'e', 'w') and 'image_size' or 'r'"
        )
    if len(_OFA_KEYS & data.keys()) > 1:  # others may be missing or misspelt
        return space.from_ofa(data, where=text)
    return space.from_description(data, text)
