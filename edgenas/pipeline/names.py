"""Targets and architectures of a run by the names that users give them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from edgenas.devices import DeviceProfile, Target, load_profile
from edgenas.errors import RunError, UsageError
from edgenas.files import read_yaml
from edgenas.pipeline.choice import find_only_choice
from edgenas.pipeline.export_formats import format_of
from edgenas.pipeline.finetuned import load_finetuned
from edgenas.pipeline.run_folder import RunFolder
from edgenas.pipeline.workspace import Workspace
from edgenas.runtimes import is_runtime
from edgenas.shell import format_command
from edgenas.space import Architecture, SearchSpace

_OFA_KEYS = frozenset(("ks", "e", "d", "w", "image_size", "r"))


def resolve_target(
    folder: RunFolder, device: str | Path, runtime: str | None, threads: int | None, precision: str | None
) -> Target:
    """Return a target by its device's name: that of imported tables if the run has any, else a profile's.

    Raises UsageError, listing what exists, for an unknown name, runtime or
    precision, and for a precision that the runtime's files do not have.
    """
    target = Target(_load_device(folder, device), runtime, precision, threads)
    if is_runtime(target.runtime):
        format_of(target)
    return target


def _load_device(folder: RunFolder, device: str | Path) -> DeviceProfile:
    """Return the profile of a device: that of imported tables if the run has any."""
    imported = folder.device(str(device))
    is_imported = Path(device).name == str(device) and imported.exists()
    return load_profile(imported if is_imported else device, str(device))


def resolve_targets(
    folder: RunFolder, device: str | Path, runtime: str | None, threads: int | None, precision: str | None
) -> list[Target]:
    """Return the targets of a device that have a latency table, of those that agree with what is given.

    Raises UsageError as ``resolve_target``, and RunError, listing the targets of the device that have a table, where
    no such one has.
    """
    profile = _load_device(folder, device)
    tabulated = [
        target for name in folder.targets_with_table() if (target := _target_of_name(profile, name)) is not None
    ]
    found = [
        target
        for target in tabulated
        if runtime in (None, target.runtime)
        and precision in (None, target.precision)
        and threads in (None, target.threads)
    ]
    if not found:
        named = resolve_target(folder, device, runtime, threads, precision)
        others = ", ".join(target.name for target in tabulated)
        raise RunError(
            f"{folder.root}: has no latency table of {named.name} yet{f', only of {others}' if others else ''};"
            f" run: {format_command('profile', '--run', folder.root)} --device {named.cli_name}"
        )
    return found


def _target_of_name(profile: DeviceProfile, name: str) -> Target | None:
    """Return the target of a profile by the name of its folder; None for one that the profile cannot be asked for."""
    parts = re.fullmatch(rf"{re.escape(profile.name)}-(.+)-([^-]+)-(\d+)t(?:-.*)?", name)
    if parts is None:
        return None
    try:
        target = Target(profile, parts[1], parts[2], int(parts[3]))
    except UsageError:
        return None  # of another device whose name begins like this one's, or of a runtime that the profile lost
    return target if target.name == name else None


def resolve_architecture(workspace: Workspace, text: str) -> Architecture:
    """Return an architecture by ``min``, ``max``, ``chosen``, its id, or the path of a JSON file.

    An id that names weights of its own is that of a fine-tuned subnet. The file holds edgenas's own form, or
    Once-for-All's: lists ``ks``, ``e``, ``d`` (ResNet: ``d``, ``e``, ``w``) and the resolution, ``image_size`` or
    ``r``. Raises UsageError, listing what is known, for anything else.
    """
    space = workspace.space
    if text == "min":
        return space.smallest
    if text == "max":
        return space.largest
    if text == "chosen":
        return find_only_choice(workspace)
    if text.endswith((".json", ".yaml", ".yml")):
        return read_architecture(space, text)
    architecture = space.from_id(text)
    if architecture.weights:
        load_finetuned(workspace, architecture)  # raises where there is none
    return architecture


def read_architecture(space: SearchSpace, text: str) -> Architecture:
    """Return the architecture of a JSON or YAML file, as ``resolve_architecture`` describes."""
    data = read_yaml(Path(text))
    if not isinstance(data, Mapping):
        raise UsageError(
            f"{text}: an architecture must be a JSON object with 'resolution' and 'stages',"
            " or 'ks', 'e', 'd' (ResNet: 'd', 'e', 'w') and 'image_size' or 'r'"
        )
    if len(_OFA_KEYS & data.keys()) > 1:  # others may be missing or misspelt
        return space.from_ofa(data, where=text)
    return space.from_description(data, text)
