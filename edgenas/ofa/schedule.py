"""Training schedules as data: the phases, their open choices, lengths and learning rates.

Three ways to train a supernet are written with them: progressive shrinking
(Once-for-All, arXiv 1908.09791), the sandwich rule with in-place distillation
(BigNAS, 2003.11142) and uniform single paths (SPOS, 1904.00420).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from edgenas.costs import Genes
from edgenas.errors import UsageError
from edgenas.files import ShortText, format_suggestion, parse_dataclass
from edgenas.space import Part, SearchSpace

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
_MOST_PHASES, _MOST_IMAGES, _MOST_STEPS = 1000, 100_000, 10**9
_LEAST_SANDWICH = 2  # the largest and the smallest
# The time of one image through the teacher, which is only run forwards, as a share of training one subnet on it.
_TEACHER_COST = 1 / 3


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
        sandwich: Whether the first two subnets of each step are the largest and the smallest (arXiv 1903.05134).
        distill: Whether the subnets also learn from the largest network as the first phase left it, or as it is in a
            trained supernet where a subnet is trained alone; ``in-place`` if the largest of the same step teaches the
            others, which then see no labels (arXiv 2003.11142).

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
    sandwich: bool = False
    distill: bool | Literal["in-place"] = True

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
        if self.sandwich and self.subnets < _LEAST_SANDWICH:
            raise UsageError(
                f"phase {self.name}: with sandwich, subnets must be at least {_LEAST_SANDWICH}, but got {self.subnets}"
            )
        if self.distill == "in-place" and not self.sandwich:
            raise UsageError(f"phase {self.name}: distill: in-place needs sandwich: true, because the largest teaches")

    @property
    def cost(self) -> float:
        """The work of one image relative to training one subnet on it."""
        return self.subnets + (_TEACHER_COST if self.distill is True else 0.0)

    def lowest_genes(self, space: SearchSpace) -> Genes:
        """Return the smallest open value of each gene, (G,)."""
        open_values = {
            "kernel_size": self.kernel_sizes,
            "depth": self.depths,
            "expand_ratio": self.expand_ratios,
            "width": self.widths,
        }
        return np.array([max(0, len(g.values) - open_values.get(g.kind, len(g.values))) for g in space.genes])

    def open_parts(self, space: SearchSpace) -> dict[str, list[Part]]:
        """Return the parts that the subnets of this phase have at each place."""
        low = self.lowest_genes(space)
        opened = {}
        for slot in space.slots:
            columns = list(slot.columns)
            values = np.indices(space.radices[columns].tolist()).reshape(len(columns), -1)
            chosen = np.flatnonzero((values >= low[columns, None]).all(axis=0))
            opened[slot.name] = [part for part in (slot.parts[index] for index in chosen) if part is not None]
        return opened

    def opens_widths_after(self, before: Phase) -> bool:
        """Return whether blocks may have fewer channels in this phase than in the one before it."""
        return self.expand_ratios > before.expand_ratios or self.widths > before.widths

    def sample(self, space: SearchSpace, rng: np.random.Generator) -> Genes:
        """Return the subnets of a step as canonical genes (subnets, G). They share a batch, hence a resolution."""
        low = self.lowest_genes(space)
        genes = rng.integers(low, space.radices, size=(self.subnets, len(low)), dtype=np.int64)
        if self.sandwich:
            genes[0, 1:], genes[1, 1:] = space.radices[1:] - 1, low[1:]
        genes[:, 0] = genes[0, 0]
        return space.canonical(genes)

    def rate(self, step: int, total: int) -> float:
        """Return the learning rate of a step of ``total``: a linear warm-up, then a cosine to zero."""
        warmup = self.warmup_epochs * total // self.epochs
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


@dataclass(frozen=True)
class Schedule:
    """The phases of training in order, and the settings that they share.

    The first phase of a supernet's training trains the teacher of the others.

    Args:
        name: The name in messages.
        phases: The phases.
        batch_size: Images of each step, over all processes.
        momentum: Nesterov's momentum of SGD.
        weight_decay: The L2 penalty of weights, not of batch norms and biases.
        label_smoothing: The share of a label that goes to all classes.
        clip_norm: The largest norm of a step's gradient; a longer one is shortened to it. None for no limit.
        ema_decay: With it the trained weights are the exponential moving average over the steps of the last phase.
        max_steps: The most steps of each phase, to try a schedule out. None for whole phases.

    Raises:
        UsageError: A value is out of range, or there is no phase.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    name: ShortText
    phases: tuple[Phase, ...]
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 3e-5
    label_smoothing: float = 0.1
    clip_norm: float | None = None
    ema_decay: float | None = None
    max_steps: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "phases", tuple(self.phases))
        if not self.phases:
            raise UsageError(f"schedule {self.name}: must have a phase")
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
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise UsageError(f"schedule {self.name}: clip_norm must be above 0, but got {self.clip_norm}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UsageError(f"schedule {self.name}: 0 < ema_decay < 1 must hold, but got {self.ema_decay}")
        if self.max_steps is not None and not 1 <= self.max_steps <= _MOST_STEPS:
            raise UsageError(
                f"schedule {self.name}: max_steps must be from 1 to {_MOST_STEPS}, but got {self.max_steps}"
            )

    def count_steps(self, phase: Phase, steps_per_epoch: int) -> int:
        """Return the number of steps of a phase."""
        steps = phase.epochs * steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def to_dict(self) -> dict[str, Any]:
        """Return the schedule as plain data that JSON gives back equal."""
        return {**asdict(self), "phases": [asdict(phase) for phase in self.phases]}


_RATE = 0.1
_WARMUP_FROM = 3  # epochs of fine-tuning of which the first warms up
_OPEN = (3, 3, 3, 3)  # kernel sizes, depths, expand ratios, widths


def _shrink(name: str, epochs: Sequence[int], warmup_epochs: int, batch_size: int) -> Schedule:
    """Return progressive shrinking with phases of these lengths: full, kernel, depth 1 and 2, expand 1 and 2."""
    full, kernel, depth_1, depth_2, expand_1, expand_2 = epochs
    phases = (
        Phase("full", full, _RATE, warmup_epochs=warmup_epochs, distill=False),
        Phase("kernel", kernel, _RATE * 0.4, kernel_sizes=3),
        Phase("depth 1", depth_1, _RATE * 0.2, kernel_sizes=3, depths=2, subnets=2),
        Phase("depth 2", depth_2, _RATE * 0.3, kernel_sizes=3, depths=3, subnets=2),
        Phase("expand 1", expand_1, _RATE * 0.2, kernel_sizes=3, depths=3, expand_ratios=2, subnets=4),
        Phase("expand 2", expand_2, _RATE * 0.3, *_OPEN, subnets=4),
    )
    return Schedule(name, phases, batch_size)


def _sandwich(name: str, epochs: int, warmup_epochs: int, batch_size: int) -> Schedule:
    """Return the sandwich rule with in-place distillation: largest, smallest and two random subnets a step."""
    phase = Phase(
        "all", epochs, _RATE, *_OPEN, subnets=4, warmup_epochs=warmup_epochs, sandwich=True, distill="in-place"
    )
    return Schedule(name, (phase,), batch_size)


def _adapt(name: str, epochs: int, batch_size: int) -> Schedule:
    """Return a short sandwich for weights that were trained already."""
    (phase,) = _sandwich(name, epochs, 1, batch_size).phases
    return Schedule(name, (replace(phase, learning_rate=_RATE * 0.4),), batch_size)


def _single_path(name: str, epochs: int, warmup_epochs: int, batch_size: int) -> Schedule:
    """Return uniform single paths: one random subnet a step, labels only."""
    phase = Phase("all", epochs, _RATE, *_OPEN, warmup_epochs=warmup_epochs, distill=False)
    return Schedule(name, (phase,), batch_size)


# Small: for a few thousand images, under two minutes on one core for the 1,078 training digits.
# Medium: for some 60,000 small images, under an hour on one core.
SCHEDULES = {
    schedule.name: schedule
    for schedule in (
        _shrink("shrink-small", (12, 4, 2, 4, 2, 6), 2, 64),
        _shrink("shrink-medium", (3, 1, 1, 1, 1, 1), 1, 128),
        _sandwich("sandwich-small", 30, 2, 64),
        _sandwich("sandwich-medium", 8, 1, 128),
        _adapt("adapt-small", 10, 64),
        _adapt("adapt-medium", 3, 128),
        _single_path("single-path-small", 30, 2, 64),
        _single_path("single-path-medium", 8, 1, 128),
    )
}


def make_finetuning_schedule(base: Schedule, epochs: int, learning_rate: float, max_steps: int | None) -> Schedule:
    """Return the schedule by which one subnet is trained alone: one phase, the other settings from a supernet's.

    Raises UsageError for a value that is out of range.
    """
    phase = Phase("finetune", epochs, learning_rate, warmup_epochs=min(1, epochs // _WARMUP_FROM))
    return replace(base, name="finetune", phases=(phase,), max_steps=max_steps)


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
