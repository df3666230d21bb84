"""Latency tables of other targets by name: what the table of a new target may start from."""

from __future__ import annotations

from pathlib import Path

from edgenas.devices import Target
from edgenas.errors import RunError, UsageError
from edgenas.files import format_suggestion
from edgenas.pipeline.workspace import Workspace
from edgenas.profilers import LatencyTable


def load_source_table(workspace: Workspace, target: Target, source: str | Path | LatencyTable) -> LatencyTable:
    """Return the table of another target: itself, by the target's name in this run, or by the path of its JSON file.

    Raises UsageError, listing the targets that have tables, for a name without
    one, for the target itself, and for a table of another space.
    """
    if isinstance(source, LatencyTable):
        table = source
    else:
        path = _find_table_file(workspace, target, str(source))
        try:
            table = LatencyTable.load(path, workspace.space)
        except RunError as error:
            raise UsageError(f"{str(error).rpartition(';')[0]}; give tables of the same space") from None
    if table.target == target.name:
        raise UsageError(f"the table of {target.name} cannot start from itself; give another target's")
    table.source_costs_for(workspace.space)
    return table


def _find_table_file(workspace: Workspace, target: Target, name: str) -> Path:
    folder = workspace.folder
    path = Path(name) if name.endswith(".json") else folder.table(name)
    if not path.exists():
        known = [other for other in folder.targets_with_table() if other != target.name]
        raise UsageError(
            f"{name}: is neither a table's JSON file nor a target that {folder.root} has a table of"
            + (format_suggestion(name, known) if known else "; it has no table of another target")
        )
    return path
