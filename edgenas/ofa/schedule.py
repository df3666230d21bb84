"""Training schedules as data: the phases, their open choices, lengths and learning rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from edgenas.costs import Genes
from edgenas.errors import UsageError
from edgenas.files import ShortText, format_suggestion, parse_dataclass
from edgenas.space import SearchSpace

_FORBID_UNKNOWN = {"extra": "forbid"}
# The largest values of a phase. More is a mistake, which would show after hours.
_MOST = {
    "epochs": 100_000,
    "learning_rate": 100,
    "kernel_sizes": 1000,
    "depths": 1000,
    "expand_ratios": 1000,
    "widths": 1000,
    "subnets": 1000,
}
_MOST_PHASES, _MOST_IMAGES = 1000, 100_000


@dataclass(frozen=True)
class Phase:
    """A phase of training in which some choices are open.

    Resolutions are always all open. Each step trains some subnets on one batch
    and sums their gradients.

    Args:
        name: The name in progress and messages.
        epochs: The length.
        learning_rate: The highest learning rate.
        kernel_sizes: The number of the largest kernel sizes that are sampled; 1 for the largest alone.
        depths: The same for depths.
        expand_ratios: The same for expand ratios.
        widths: The same for widths.
        subnets: The number of subnets of each step.
        warmup_epochs: The epochs in which the learning rate rises.
        distill: Whether the subnets learn from the largest network as the first phase left it.

    Raises:
        UsageError: A value is out of range.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    name: ShortText
    epochs: int
    learning_rate: float
    kernel_sizes: int = 1
    depths: int = 1
    expand_ratios: int = 1
    widths: int = 1
    subnets: int = 1
    warmup_epochs: int = 0
    distill: bool = True

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not 0 < value <= most:
                raise UsageError(f"phase {self.name}: {name} must be above 0 and at most {most}, but got {value}")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise UsageError(
                f"phase {self.name}: 0 <= warmup_epochs <= epochs must hold,"
                f" but got {self.warmup_epochs} and {self.epochs}"
            )

    def sample(self, space: SearchSpace, rng: np.random.Generator) -> Genes:
        """Return the subnets of a step as canonical genes (subnets, G). They share a batch, hence a resolution."""
        open_values = {
            "kernel_size": self.kernel_sizes,
            "depth": self.depths,
            "expand_ratio": self.expand_ratios,
            "width": self.widths,
        }
        low = np.array([max(0, len(g.values) - open_values.get(g.kind, len(g.values))) for g in space.genes])
        genes = rng.integers(low, space.radices, size=(self.subnets, len(low)), dtype=np.int64)
        genes[:, 0] = genes[0, 0]
        return space.canonical(genes)

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step: a linear warm-up, then a cosine to zero."""
        warmup = self.warmup_epochs * steps_per_epoch
        total = self.epochs * steps_per_epoch
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


@dataclass(frozen=True)
class Schedule:
    """The phases of training in order, and the settings that they share.

    The first phase trains the teacher of the others. Raises UsageError when it
    distills, or a value is out of range.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    name: ShortText
    phases: tuple[Phase, ...]
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 3e-5
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "phases", tuple(self.phases))
        if not self.phases or self.phases[0].distill:
            raise UsageError(f"schedule {self.name}: the first phase must exist and must not distill")
        if len(self.phases) > _MOST_PHASES:
            raise UsageError(
                f"schedule {self.name}: must have at most {_MOST_PHASES} phases, but got {len(self.phases)}"
            )
        if not 2 <= self.batch_size <= _MOST_IMAGES:
            raise UsageError(
                f"schedule {self.name}: batch_size must be at least 2 and at most {_MOST_IMAGES},"
                f" but got {self.batch_size}"
            )
        if not 0 < self.momentum < 1:
            raise UsageError(f"schedule {self.name}: 0 < momentum < 1 must hold, but got {self.momentum}")
        if not 0 <= self.weight_decay <= 1:
            raise UsageError(f"schedule {self.name}: weight_decay must be from 0 to 1, but got {self.weight_decay}")
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(
                f"schedule {self.name}: 0 <= label_smoothing < 1 must hold, but got {self.label_smoothing}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the schedule as plain data that JSON gives back equal."""
        return {**asdict(self), "phases": [asdict(phase) for phase in self.phases]}


# Once-for-All's progressive shrinking, sized for the 1,078 training digits: under two minutes on one core.
_RATE = 0.1
SCHEDULES = {
    "shrink-small": Schedule(
        "shrink-small",
        (
            Phase("full", 12, _RATE, warmup_epochs=2, distill=False),
            Phase("kernel", 4, _RATE * 0.4, kernel_sizes=3),
            Phase("depth 1", 2, _RATE * 0.2, kernel_sizes=3, depths=2, subnets=2),
            Phase("depth 2", 4, _RATE * 0.3, kernel_sizes=3, depths=3, subnets=2),
            Phase("expand 1", 2, _RATE * 0.2, kernel_sizes=3, depths=3, expand_ratios=2, subnets=4),
            Phase("expand 2", 6, _RATE * 0.3, kernel_sizes=3, depths=3, expand_ratios=3, widths=3, subnets=4),
        ),
    ),
    # The same for some 60,000 small images: under an hour on one core.
    "shrink-medium": Schedule(
        "shrink-medium",
        (
            Phase("full", 3, _RATE, warmup_epochs=1, distill=False),
            Phase("kernel", 1, _RATE * 0.4, kernel_sizes=3),
            Phase("depth 1", 1, _RATE * 0.2, kernel_sizes=3, depths=2, subnets=2),
            Phase("depth 2", 1, _RATE * 0.3, kernel_sizes=3, depths=3, subnets=2),
            Phase("expand 1", 1, _RATE * 0.2, kernel_sizes=3, depths=3, expand_ratios=2, subnets=4),
            Phase("expand 2", 1, _RATE * 0.3, kernel_sizes=3, depths=3, expand_ratios=3, widths=3, subnets=4),
        ),
        batch_size=128,
    ),
}


def load_schedule(schedule: str | Mapping[str, Any] | Schedule, where: str = "schedule") -> Schedule:
    """Return a schedule by its name or from plain data.

    Raises UsageError, naming ``where``, for an unknown name or key, or a wrong value.
    """
    if isinstance(schedule, Schedule):
        return schedule
    if isinstance(schedule, str):
        if schedule not in SCHEDULES:
            raise UsageError(f"{where}: unknown schedule {schedule!r}{format_suggestion(schedule, sorted(SCHEDULES))}")
        return SCHEDULES[schedule]
    return parse_dataclass(Schedule, dict(schedule), where)
