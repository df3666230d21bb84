"""Which subnets a latency table is made from: written down before they are measured, so that a kill changes nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from edgenas.errors import FormatError
from edgenas.files import parse_dataclass, read_document, write_document

_KIND, _VERSION = "profile_plan", 1


@dataclass(frozen=True)
class Planned:
    """A batch of subnets in the order of measuring: ids, the SHA-256 of each one's file, and which only judge.

    ``failed``: ids of those that the device could not run; they are no part of it any more.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    architectures: tuple[str, ...]
    models: tuple[str, ...]
    held_out: tuple[bool, ...]
    failed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.architectures) == len(self.models) == len(self.held_out):
            raise FormatError(
                "a batch must have as many models and held_out as architectures, but has"
                f" {len(self.models)} and {len(self.held_out)} for {len(self.architectures)}; move the file away and"
                " run the command again"
            )

    def without(self, failed: Collection[str]) -> Planned:
        """Without those that the device could not run."""
        rows = zip(self.architectures, self.models, self.held_out, strict=True)
        kept = [row for row in rows if row[0] not in failed]
        names, models, held_out = zip(*kept, strict=True)
        return Planned(names, models, held_out, (*self.failed, *failed))


@dataclass(frozen=True)
class Plan:
    """All batches so far. ``inputs_digest``: the space, the target and the settings that they are for."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    inputs_digest: str
    batches: tuple[Planned, ...] = ()

    @classmethod
    def load(cls, path: Path, inputs_digest: str) -> Plan:
        """What was planned from these inputs, nothing where there is no such plan; raises FormatError if damaged."""
        if not path.exists():
            return cls(inputs_digest)
        found = parse_dataclass(cls, dict(read_document(path, _KIND, _VERSION)), str(path))
        return found if found.inputs_digest == inputs_digest else cls(inputs_digest)

    def with_batch(self, number: int, batch: Planned, path: Path) -> Plan:
        """With one more batch, or with another in the place of a number's; it is written down at once."""
        changed = Plan(self.inputs_digest, (*self.batches[:number], batch, *self.batches[number + 1 :]))
        write_document(path, _KIND, _VERSION, asdict(changed))
        return changed

    @property
    def failed(self) -> tuple[str, ...]:
        """The ids of all subnets that the device could not run."""
        return tuple(name for batch in self.batches for name in batch.failed)
