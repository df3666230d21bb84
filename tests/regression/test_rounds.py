"""Rounds: their order, their time, and how they end."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from edgenas.errors import ModelError
from edgenas.profilers import Measurement, MeasureSettings, MeasuringSession
from edgenas.regression.rounds import Round, iter_rounds

NEW, OTHER = Path("new.onnx"), Path("other.onnx")
Make = Callable[..., tuple[Measurement, ...]]


class Session:
    """A session whose models take a second of a clock that only it advances: 1 ms the new one, 2 ms the other."""

    def __init__(self, make: Make, clock: list[float], failing: int = -1) -> None:
        self.make, self.clock, self.failing = make, clock, failing
        self.ran: list[Path] = []
        self.is_closed = False

    def iter_measurements(
        self, models: Sequence[Path], settings: object, inputs: object
    ) -> Generator[Measurement | ModelError, None, None]:
        try:
            for number, model in enumerate(models):
                self.ran.append(model)
                self.clock[0] += 1.0
                if number == self.failing:
                    yield ModelError(f"{model}: crashes onnxruntime")
                yield self.make([1.0 if model == NEW else 2.0], device_s=1.0)[0]
        finally:
            self.is_closed = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which starts late: connecting and waiting for the lock are over."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def rounds(session: Any, models: Sequence[Path], seconds: float) -> Generator[Round, None, None]:
    return iter_rounds(cast(MeasuringSession, session), models, MeasureSettings(), None, seconds)


def test_every_second_round_runs_in_the_other_order(make: Make, clock: list[float]) -> None:
    """What the first model leaves behind falls on both alike; each round knows which is the new one."""
    session = Session(make, clock)
    with contextlib.closing(rounds(session, [NEW, OTHER], 100)) as found:
        taken = list(itertools.islice(found, 3))
    assert session.ran[:6] == [NEW, OTHER, OTHER, NEW, NEW, OTHER]
    assert [(each.new.median_ms, each.other.median_ms if each.other else None) for each in taken] == [(1.0, 2.0)] * 3
    assert [each.new.round for each in taken] == [0, 1, 2]


def test_a_round_that_would_last_too_long_is_not_begun(make: Make, clock: list[float]) -> None:
    """Two seconds a round: after two rounds, 4 of 5 seconds are over, and the third would end at 6."""
    session = Session(make, clock)
    assert [each.seconds for each in rounds(session, [NEW, OTHER], 5)] == [2.0, 4.0]
    assert session.is_closed


def test_one_round_is_always_measured(make: Make, clock: list[float]) -> None:
    """So that its duration is known."""
    assert len(list(rounds(Session(make, clock), [NEW], 0.01))) == 1


def test_closing_ends_the_agent(make: Make, clock: list[float]) -> None:
    """Whoever has seen enough closes the rounds, and nothing more is run."""
    session = Session(make, clock)
    found = rounds(session, [NEW, OTHER], 100)
    next(found)
    found.close()
    assert (session.is_closed, len(session.ran)) == (True, 2)


def test_a_model_that_fails_ends_the_rounds(make: Make, clock: list[float]) -> None:
    """After those before it."""
    session = Session(make, clock, failing=3)
    found = rounds(session, [NEW, OTHER], 100)
    next(found)
    with pytest.raises(ModelError, match=r"new\.onnx: crashes onnxruntime"):
        next(found)
    assert session.is_closed
