"""The step that makes a run from published latency tables, without weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgenas.accuracy import ReleasedPredictor
from edgenas.devices import DeviceProfile, Target, absent_profile, shipped_profile_files_by_name
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
    folder: str | Path,
    tables: str | Path,
    device: str,
    space: SearchSpace,
    predictor: str | Path | None = None,
    progress: Progress | None = None,
) -> Run:
    """Make or extend a run that can be searched for the device of published latency tables.

    Nothing can be measured on that device. Nothing is written before all files were read.

    Args:
        folder: The run folder.
        tables: A latency table of the Once-for-All or ProxylessNAS authors, or a folder of such tables.
        device: The name that the device gets in this run, as in ``--device``.
        space: The space of the tables; its resolutions without a table are dropped.
        predictor: The authors' accuracy predictor, ``acc_predictor.pth``.
        progress: Receives progress; by default it is printed on standard error.

    Raises:
        UsageError: A name or a file is wrong.
        RunError: The run is of another space, or has measured a device of this name.
    """
    progress = Progress() if progress is None else progress
    if device in shipped_profile_files_by_name():
        raise UsageError(f"{device!r} is the name of a device that can be measured; give the published tables another")
    profile = absent_profile(device)
    target = Target(profile)
    published = PublishedTables.load(Path(tables))
    wanted, space = len(space.resolutions), _keep_tabulated_resolutions(space, published)
    table = published.to_latency_table(space, target.name)
    released = None if predictor is None else ReleasedPredictor.load_checkpoint(Path(predictor), space)
    run = Run(folder, space, progress=progress)
    with run.folder.writing():
        _refuse_measured(run.folder, target)
        table.save(run.folder.table(target.name))
        if released is not None:
            released.save(run.folder.released_predictor)
        _write_profile(run.folder.device(device), profile)
    _report_noisy_entries(progress, published)
    if len(space.resolutions) < wanted:
        kept = ", ".join(map(str, space.resolutions))
        progress.say(f"import    of the space's {wanted} resolutions those with a table are kept: {kept}")
    progress.say(f"import    {run.folder.table(target.name)}: {table.source}")
    return run


def _keep_tabulated_resolutions(space: SearchSpace, published: PublishedTables) -> SearchSpace:
    """Return the space with only the resolutions that have a table; unchanged where none has."""
    shared = tuple(size for size in space.resolutions if size in published.tables)
    fields: Any = space  # every space is a dataclass
    narrowed: SearchSpace = replace(fields, resolutions=shared) if shared else space
    return narrowed


def _refuse_measured(folder: RunFolder, target: Target) -> None:
    """Raise RunError for a run that measured a device of this name: its tables would be mixed up."""
    name = target.profile.name
    measured = [other for other in folder.profiled_targets(name) if other != target.name]
    if measured:
        raise RunError(
            f"{folder.root}: has a latency table measured on {name} ({measured[0]});"
            " import the published ones under another device name"
        )


def _write_profile(path: Path, profile: DeviceProfile) -> None:
    import json

    import yaml

    plain = json.loads(json.dumps(profile.to_dict()))  # tuples as lists
    write_bytes(path, yaml.safe_dump(plain, sort_keys=False).encode())


def _report_noisy_entries(progress: Progress, published: PublishedTables) -> None:
    noisy = sorted(published.noisy_entries(_NOISE), key=lambda found: -found[2])
    if noisy:
        progress.say(f"import    {len(noisy)} entries vary by more than {_NOISE:.0%} (standard deviation over mean):")
    for resolution, key, variation in noisy[:_SHOWN]:
        progress.say(f"import    {variation:.1%}  {key} at {resolution}")
    if len(noisy) > _SHOWN:
        progress.say(f"import    and {len(noisy) - _SHOWN} more")
