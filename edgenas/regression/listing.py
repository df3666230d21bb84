"""Listing the operators of a model in the session that measures it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgenas.devices import Target
from edgenas.errors import ModelError
from edgenas.profilers import (
    MIN_PROCESSES,
    MeasureSettings,
    MeasuringSession,
    ModelInputs,
    Operator,
    OperatorProfile,
    profile_operators,
)

# A check waits for its operators: as few processes as give an interval, and few runs in each.
PROCESSES = MIN_PROCESSES
_SETTINGS = MeasureSettings(
    min_runs=2, max_runs=20, min_seconds=0.0, max_seconds=0.1, warmup_runs=1, warmup_seconds=0.1
)


def profile_in_session(
    session: MeasuringSession, target: Target, models: Sequence[Path], inputs: ModelInputs | None, processes: int
) -> list[OperatorProfile]:
    """Profile model files in an open session, in short processes; raise as ``profile_operators`` does."""
    return profile_operators(models, target, inputs, processes=processes, settings=_SETTINGS, session=session)


def list_placed_operators(
    session: MeasuringSession, target: Target, model: Path, inputs: ModelInputs | None
) -> tuple[Operator, ...] | None:
    """Return a model's operators, where one process ran them, without times; None where the runtime lists none."""
    try:
        (profile,) = profile_in_session(session, target, [model], inputs, processes=1)
    except ModelError:
        return None
    return tuple(replace(operator, times_us=()) for operator in profile.operators)
