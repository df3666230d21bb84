"""The step that makes a run from a released checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgenas.errors import FormatError, RunError, UsageError
from edgenas.files import format_suggestion, read_bytes, sha256_hex
from edgenas.ofa import Checkpoint, Position, Supernet, load_checkpoint, save_checkpoint
from edgenas.ofa.released import build_supernet
from edgenas.ofa.released_file import read_released_file
from edgenas.pipeline.downloads import OFFICIAL, fetch, remove_download
from edgenas.pipeline.progress import Progress
from edgenas.pipeline.run import Run

# The resolutions that the official networks were trained at.
_TRAINED = tuple(range(128, 225, 4))


def import_weights(
    folder: str | Path,
    source: str,
    choices: Mapping[str, Any] | None = None,
    *,
    mirror: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Make a run with the space and the weights of a released checkpoint, as if it had been trained.

    Args:
        folder: The run folder; nothing is done when it already has these weights.
        source: A file, or the name of an official checkpoint, which is downloaded into a cache.
        choices: The choices of the space where they are not the published ones, as in ``load_released``.
        mirror: Address of another server to download from.
        progress: Receives progress; by default it is printed on standard error.

    Raises:
        RunError: The run has other weights.
        FormatError: The file is no checkpoint, or its checksum is not the recorded one.
        EdgeNASError: The download failed; the same call resumes it.
    """
    progress = Progress() if progress is None else progress
    path = Path(source)
    if not path.is_file() and source in OFFICIAL:
        path = fetch(source, mirror, progress)
    elif not path.exists() and path.name == source:
        raise UsageError(
            f"{source!r} is neither a file nor an official checkpoint{format_suggestion(source, sorted(OFFICIAL))}"
        )
    recipe = {"imported": path.name, "sha256": sha256_hex(read_bytes(path))}
    chosen = {"resolutions": _TRAINED, **(choices or {})}
    supernet = _load_supernet(path, chosen, progress, downloaded=path != Path(source))
    run = Run(folder, supernet.space, progress=progress)
    _store_weights(run, supernet, recipe)
    return run


def _load_supernet(path: Path, choices: Mapping[str, Any], progress: Progress, downloaded: bool) -> Supernet:
    """Load the supernet; remove a download that is no checkpoint (an error page), so that it is tried again."""
    try:
        released = read_released_file(path)
        supernet = build_supernet(released, choices)
    except FormatError:
        if downloaded:
            remove_download(path)
        raise
    if released.others:
        progress.say(f"import    the weights are {released.where}; it also has {', '.join(released.others)}")
    return supernet


def _store_weights(run: Run, supernet: Supernet, recipe: dict[str, Any]) -> None:
    path = run.folder.checkpoint
    with run.folder.writing():
        if not path.exists():
            save_checkpoint(path, Checkpoint(supernet, Position(0, 0), {}, recipe, threads=1))
            return
        found = load_checkpoint(path).recipe
    if found.get("sha256") != recipe["sha256"]:
        origin = f"imported from {found['imported']}" if "imported" in found else "trained"
        raise RunError(
            f"{run.folder.root}: already has a supernet, {origin}, not {recipe['imported']}; use another run folder"
        )
    run.workspace.progress.say(f"import    already done ({recipe['imported']})")
