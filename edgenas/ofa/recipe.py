"""The recipe of a training: data, schedule, seed and what it begins with. Whether one can be followed or resumed."""

from __future__ import annotations

from typing import Any

from edgenas.data import DataSet
from edgenas.errors import UsageError
from edgenas.ofa.ranks import ALONE, Ranks
from edgenas.ofa.schedule import Schedule
from edgenas.ofa.trainees import SingleSubnet, WholeSupernet
from edgenas.space import SearchSpace


def make_recipe(trainee: WholeSupernet | SingleSubnet, data: DataSet, schedule: Schedule, seed: int) -> dict[str, Any]:
    """Return everything that decides the trained weights, as plain data."""
    return {"data": data.recipe, "schedule": schedule.to_dict(), "seed": seed, **trainee.recipe}


def check_recipe(
    space: SearchSpace,
    data: DataSet,
    schedule: Schedule,
    seed: int,
    ranks: Ranks = ALONE,
    *,
    has_teacher: bool = False,
) -> None:
    """Raise UsageError unless the space can be trained on the data by the schedule, by so many processes.

    ``has_teacher`` is true where a trained teacher is there before the first phase.
    """
    if schedule.phases[0].distill is True and not has_teacher:
        raise UsageError(f"schedule {schedule.name}: the first phase must not distill, because it trains the teacher")
    if data.class_count != space.classes:
        raise UsageError(f"data {data.name} has {data.class_count} classes, the space {space.classes}; they must agree")
    check_channels(space, data)
    if len(data.train) < schedule.batch_size:
        raise UsageError(
            f"schedule {schedule.name}: batch_size must be at most the {len(data.train)} training images of"
            f" {data.name}, but got {schedule.batch_size}"
        )
    if schedule.batch_size % ranks.count or schedule.batch_size < 2 * ranks.count:
        raise UsageError(
            f"schedule {schedule.name}: batch_size ({schedule.batch_size}) is divided among {ranks.count} processes;"
            " it must be a multiple of their number, two images for each at least"
        )
    if not 0 <= seed < 2**63:
        raise UsageError(f"seed must be from 0 to 2**63 - 1, but got {seed}")


def check_channels(space: SearchSpace, data: DataSet) -> None:
    """Raise UsageError unless the data's images have as many channels as the networks' inputs."""
    channels = space.largest.input_shape[0]
    if data.preprocessing.channels != channels:
        raise UsageError(f"data {data.name} has {data.preprocessing.channels} channels, the space {channels}")


def keep_initial_name(recipe: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe with the recorded name of the weights to begin with, where ``found`` has the same weights.

    Their digest decides: the same file or run may have another path now.
    """
    initial, recorded = recipe.get("initial"), found.get("initial")
    if isinstance(initial, dict) and isinstance(recorded, dict) and initial["sha256"] == recorded.get("sha256"):
        return {**recipe, "initial": recorded}
    return recipe


def describe_change(key: str, found: Any, wanted: Any) -> str:
    """Return the name of a value of a recipe that differs, empty where it does not."""
    if found == wanted:
        return ""
    if key == "initial":
        then, now = (value.get("name") if isinstance(value, dict) else "none" for value in (found, wanted))
        described = f"{then}, whose weights were changed" if then == now else f"{then} then, {now} now"
        return f"file or run to begin with (--from {described})"
    if isinstance(found, dict) and isinstance(wanted, dict):
        if key == "schedule" and {**found, "max_steps": None} == {**wanted, "max_steps": None}:
            return f"--max-steps ({found['max_steps'] or 'none'} then, {wanted['max_steps'] or 'none'} now)"
        if {**found, "sha256": ""} == {**wanted, "sha256": ""}:
            return f"{key} (its images were changed)"
    return key
