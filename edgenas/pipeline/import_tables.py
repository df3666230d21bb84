"""The step that makes a run of published latency tables, without weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgenas.accuracy import ReleasedPredictor
from edgenas.devices import DeviceProfile, Target, absent_profile, shipped_profiles
from edgenas.errors import RunError, UsageError
from edgenas.files import write_bytes
from edgenas.pipeline.progress import Progress
from edgenas.pipeline.run import Run
from edgenas.pipeline.run_folder import RunFolder
from edgenas.profilers import PublishedTables
from edgenas.space import SearchSpace

_NOISE = 0.1
_SHOWN = 10


def import_tables(
    folder: str | Path, tables: Path, device: str, space: SearchSpace, predictor: Path | None, progress: Progress
) -> Run:
    """A run of ``space`` in ``folder``, made or extended, that can be searched for the device of published tables.

    ``device`` is the name that the device has in this run from here on, as in
    ``--device``; nothing can be measured on it. ``predictor`` is the released
    ``acc_predictor.pth``. Of the space's resolutions those are kept that there
    are tables of. Nothing is written before all of it has been read.
    Raises UsageError or FormatError for a wrong name or file, RunError for a
    run of another space or one that has measured a device of this name.
    """
    if device in shipped_profiles():
        raise UsageError(f"{device!r} is the name of a device that can be measured; give the published tables another")
    profile = absent_profile(device)
    target = Target(profile)
    published = PublishedTables.load(tables)
    space = _narrowed(space, published)
    table = published.to_table(space, target.name)
    released = None if predictor is None else ReleasedPredictor.from_checkpoint(predictor, space)
    run = Run(folder, space, progress=progress)
    _refuse_measured(run.layout, target)
    with run.layout.writing():
        table.save(run.layout.table(target.name))
        if released is not None:
            released.save(run.layout.released_predictor)
        _write_profile(run.layout.device(device), profile)
    _say_noisy(progress, published)
    progress.say(f"import    {run.layout.table(target.name)}: {table.source}")
    return run


def _narrowed(space: SearchSpace, published: PublishedTables) -> SearchSpace:
    """The space with only the resolutions that there are tables of; itself where there are none."""
    shared = tuple(size for size in space.resolutions if size in published.tables)
    fields: Any = space  # every space is a dataclass
    narrowed: SearchSpace = replace(fields, resolutions=shared) if shared else space
    return narrowed


def _refuse_measured(layout: RunFolder, target: Target) -> None:
    name = target.profile.name
    measured = [other for other in layout.profiled_targets(name) if other != target.name]
    if measured:
        raise RunError(
            f"{layout.root}: has a latency table measured on {name} ({measured[0]});"
            " import the published ones under another device name"
        )


def _write_profile(path: Path, profile: DeviceProfile) -> None:
    import json

    import yaml

    plain = json.loads(json.dumps(profile.to_dict()))  # tuples as lists
    write_bytes(path, yaml.safe_dump(plain, sort_keys=False).encode())


def _say_noisy(progress: Progress, published: PublishedTables) -> None:
    noisy = sorted(published.noisy(_NOISE), key=lambda found: -found[2])
    if noisy:
        progress.say(f"import    {len(noisy)} entries vary by more than {_NOISE:.0%} (standard deviation over mean):")
    for resolution, key, variation in noisy[:_SHOWN]:
        progress.say(f"import    {variation:.1%}  {key} at {resolution}")
    if len(noisy) > _SHOWN:
        progress.say(f"import    and {len(noisy) - _SHOWN} more")
