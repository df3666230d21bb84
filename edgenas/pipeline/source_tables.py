"""Tables of other targets by name: what a new target's table may begin with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgenas.devices import Target
from edgenas.errors import RunError, UsageError
from edgenas.files import nearest
from edgenas.profilers import LatencyTable

if TYPE_CHECKING:
    from edgenas.pipeline.run import Run


def other_table(run: Run, target: Target, other: str | Path | LatencyTable) -> LatencyTable:
    """The table of another target: itself, the target's name in this run, or the path of a table's JSON file.

    Raises UsageError, listing what there is, for a name without a table, for
    the target's own, and for a table of another space.
    """
    table = other if isinstance(other, LatencyTable) else _load(run, target, str(other))
    if table.target == target.name:
        raise UsageError(f"the table of {target.name} cannot begin with itself; give another target's")
    table.costs_for(run.space)
    return table


def _load(run: Run, target: Target, name: str) -> LatencyTable:
    path = Path(name) if name.endswith(".json") else run.layout.table(name)
    if not path.exists():
        known = [each for each in run.layout.targets_with_table() if each != target.name]
        raise UsageError(
            f"{name}: is neither a table's JSON file nor a target that {run.layout.root} has a table of"
            + (nearest(name, known) if known else "; it has none of another target")
        )
    try:
        return LatencyTable.load(path, run.space)
    except RunError as error:
        raise UsageError(f"{str(error).rpartition(';')[0]}; give tables of the same space") from None
