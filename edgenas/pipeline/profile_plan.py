"""The plan of a profile: batches of subnets, written before they are measured, so that a kill changes nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import MinLen

from edgenas.errors import FormatError
from edgenas.files import ShortText
from edgenas.pipeline.documents import PROFILE_PLAN


@dataclass(frozen=True)
class PlannedBatch:
    """A batch of subnets in the order of measuring: ids, SHA-256 of their files, and a mask of the held-out ones.

    ``failed``: ids of subnets that the device could not run, and that were removed from the batch.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    architectures: Annotated[tuple[ShortText, ...], MinLen(1)]
    models: tuple[ShortText, ...]
    held_out: tuple[bool, ...]
    failed: tuple[ShortText, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.architectures) == len(self.models) == len(self.held_out):
            raise FormatError(
                "a batch must have as many models and held_out as architectures, but has"
                f" {len(self.models)} and {len(self.held_out)} for {len(self.architectures)}; move the file away and"
                " run the command again"
            )

    def without(self, failed: Collection[str]) -> PlannedBatch:
        """Return the batch without the subnets that the device could not run."""
        rows = zip(self.architectures, self.models, self.held_out, strict=True)
        kept = [row for row in rows if row[0] not in failed]
        names, models, held_out = zip(*kept, strict=True)
        return PlannedBatch(names, models, held_out, (*self.failed, *failed))


@dataclass(frozen=True)
class ProfilePlan:
    """All batches so far. ``inputs_digest`` belongs to the space, the target and the settings that they are for."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    inputs_digest: ShortText
    batches: tuple[PlannedBatch, ...] = ()

    def __post_init__(self) -> None:
        names = [name for batch in self.batches for name in (*batch.architectures, *batch.failed)]
        if len(set(names)) < len(names):
            raise FormatError("batches must name no subnet twice; move the file away and run the command again")

    @classmethod
    def load(cls, path: Path, inputs_digest: str) -> ProfilePlan:
        """Read the plan for these inputs; an empty one where the file is missing or of other inputs."""
        if not path.exists():
            return cls(inputs_digest)
        found = PROFILE_PLAN.read_as(cls, path)
        return found if found.inputs_digest == inputs_digest else cls(inputs_digest)

    def with_batch(self, number: int, batch: PlannedBatch, path: Path) -> ProfilePlan:
        """Return the plan with the batch of this number added or replaced; write it at once."""
        changed = ProfilePlan(self.inputs_digest, (*self.batches[:number], batch, *self.batches[number + 1 :]))
        PROFILE_PLAN.write(path, asdict(changed))
        return changed

    @property
    def failed(self) -> tuple[str, ...]:
        """Ids of all subnets that the device could not run."""
        return tuple(name for batch in self.batches for name in batch.failed)
