"""Training configs: space, data set, schedule and seed of a run as a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgenas.errors import UsageError
from edgenas.files import parse_dataclass, read_yaml
from edgenas.space import SearchSpace, check_space, space_from_dict

if TYPE_CHECKING:
    from edgenas.data import DataSet
    from edgenas.ofa import Schedule


@dataclass(frozen=True)
class TrainingConfig:
    """``space`` as in ``space_from_dict``, ``data`` as in ``load_data``, a schedule's name or phases, and the seed."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    space: dict[str, Any]
    data: str | dict[str, Any] = "digits"
    schedule: str | dict[str, Any] = "sandwich-small"
    seed: int = 0

    @classmethod
    def load(cls, path: Path) -> TrainingConfig:
        """Read a config; raise UsageError naming the file and the first wrong key or value."""
        data = read_yaml(path)
        if not isinstance(data, Mapping):
            raise UsageError(f"{path}: a training config must be a mapping that begins with 'space:'")
        return parse_dataclass(cls, dict(data), str(path))

    def make_space(self, where: str) -> SearchSpace:
        """Return the config's space; raise UsageError naming ``where``."""
        return space_from_dict(self.space, f"{where}: space")

    def make_schedule(self, where: str, max_steps: int | None = None) -> Schedule:
        """Return the config's schedule, perhaps with fewer steps; raise UsageError naming ``where``."""
        from edgenas.ofa import load_schedule

        schedule = load_schedule(self.schedule, f"{where}: schedule")
        return schedule if max_steps is None else replace(schedule, max_steps=max_steps)

    def check(self, where: str, schedule: Schedule, skip_bad: bool = False) -> tuple[SearchSpace, DataSet]:
        """Check all values and return the space and the data set, so that a wrong config makes no run folder.

        Args:
            where: The config's file, which messages name.
            schedule: What ``make_schedule`` returned.
            skip_bad: Whether images of a folder that cannot be read are left out.
        """
        from edgenas.data import DataSource, load_data
        from edgenas.ofa import Ranks, check_recipe, count_ranks

        space = self.make_space(where)
        check_space(space)
        source = DataSource.parse(self.data, f"{where}: data")
        data = load_data(replace(source, skip_bad=skip_bad or source.skip_bad))
        check_recipe(space, data, schedule, self.seed, Ranks(count=count_ranks()))
        return space, data


# The demo's: real digits, small enough for two cores.
DEFAULT = TrainingConfig({"family": "mobilenet_v3", "width": 0.35, "resolutions": [24, 28, 32], "classes": 10})
