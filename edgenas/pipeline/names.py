"""Targets and architectures of a run by the names that users give them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgenas.devices import Target, load_profile
from edgenas.errors import RunError, UsageError
from edgenas.files import read_yaml
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
    imported = folder.device(str(device))
    is_imported = Path(device).name == str(device) and imported.exists()
    target = Target(load_profile(imported if is_imported else device, str(device)), runtime, precision, threads)
    if is_runtime(target.runtime):
        format_of(target)
    return target


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
        return _find_only_choice(workspace)
    if text.endswith((".json", ".yaml", ".yml")):
        return read_architecture(space, text)
    architecture = space.from_id(text)
    if architecture.weights:
        load_finetuned(workspace, architecture)  # raises where there is none
    return architecture


def _find_only_choice(workspace: Workspace) -> Architecture:
    """Return what was chosen, for whatever target; RunError for nothing, and for several different architectures."""
    from edgenas.pipeline.choose import Choice

    folder = workspace.folder
    paths = [path for target in sorted(folder.targets.glob("*")) for path in folder.choices(target.name)]
    choices = [Choice.load(path, workspace.space) for path in paths]
    chosen = {choice.arch.id: choice for choice in choices}
    if len(chosen) == 1:
        return choices[0].arch
    if not chosen:
        command = format_command("choose", "--run", folder.root, "--latency", "5ms")
        raise RunError(f"{folder.root}: has no choice yet; run: {command}")
    listed = ", ".join(f"{each} ({choice.budget} on {choice.target})" for each, choice in chosen.items())
    raise RunError(f"{folder.root}: has several choices: {listed}; name one with --arch")


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
