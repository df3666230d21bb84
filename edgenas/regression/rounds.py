"""Rounds of models side by side: one process of each in turn, for as long as somebody asks for more."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgenas.errors import ModelError, UsageError
from edgenas.profilers import Measurement, MeasureSettings, MeasuringSession, ModelInputs
from edgenas.regression.statistics import MAX_ROUNDS

SECONDS = 30.0
MAX_SECONDS = 3600.0


def check_seconds(seconds: float) -> None:
    """Raise UsageError for a time that no check may take."""
    if not 0 < seconds <= MAX_SECONDS:
        raise UsageError(f"seconds must be above 0 and at most {MAX_SECONDS:g}, but got {seconds:g}")


@dataclass(frozen=True)
class Round:
    """One process of the new model and, where there is one, of another model, near each other in time.

    Attributes:
        new: the new model's.
        other: the other model's.
        seconds: from the start of the first round to the end of this one.
    """

    new: Measurement
    other: Measurement | None
    seconds: float

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """The one or two measurements."""
        return (self.new,) if self.other is None else (self.new, self.other)

    @property
    def is_rejected(self) -> bool:
        """True where the conditions of either process are rejected; the round does not count then."""
        return any(one.is_rejected for one in self.measurements)


@dataclass(frozen=True)
class TakenRounds:
    """The rounds that were measured, and what ended them early, else empty."""

    rounds: tuple[Round, ...] = ()
    lost: str = ""

    @property
    def counted(self) -> list[Round]:
        """The rounds that were not rejected."""
        return [each for each in self.rounds if not each.is_rejected]


def iter_rounds(
    session: MeasuringSession,
    models: Sequence[Path],
    settings: MeasureSettings,
    inputs: ModelInputs | None,
    seconds: float,
) -> Generator[Round, None, None]:
    """Measure the new model, or it and another, round by round, until the time is up or the iterator is closed.

    Every second round runs the models in the other order, so that what the first leaves behind, such as a warm cache
    or a hot core, falls on both alike. The time counts from the start of the first process; a round that would last
    longer than what is left of it is not begun.

    Raises:
        ModelError: a model cannot be run.
        DeviceError: the device cannot be reached or vanishes, after the rounds before were yielded.
    """
    both = list(range(len(models)))
    least_s = len(models) * max(settings.min_seconds, 0.01)  # that a round takes
    rounds = min(MAX_ROUNDS, 1 + math.ceil(seconds / least_s))
    order = [number for index in range(rounds) for number in (both[::-1] if index % 2 else both)]
    begun: float | None = None
    with contextlib.closing(session.iter_measurements([models[each] for each in order], settings, inputs)) as outcomes:
        taken: dict[int, Measurement] = {}
        for turn, (number, outcome) in enumerate(zip(order, outcomes, strict=True)):
            if isinstance(outcome, ModelError):
                raise outcome
            begun = time.monotonic() - outcome.device_s if begun is None else begun
            taken[number] = replace(outcome, round=turn // len(models), taken_s=time.time())
            if len(taken) == len(models):
                spent = time.monotonic() - begun
                yield Round(taken[0], taken.get(1), spent)
                taken = {}
                done = (turn + 1) // len(models)
                if spent + spent / done > seconds:
                    return
