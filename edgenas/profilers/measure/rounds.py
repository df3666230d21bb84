"""MeasuringRounds of measuring: one process of each model in turn, until the median of each is known well enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from edgenas.devices import Target
from edgenas.errors import ModelError
from edgenas.profilers.measure.cpu_speed import measurement_with_probe_deviation, median_probe_ms
from edgenas.profilers.measure.measurement import Measurement
from edgenas.profilers.measure.model_files import ModelInputs, read_model_files
from edgenas.profilers.measure.result import MeasurementResult
from edgenas.profilers.measure.settings import MeasureSettings
from edgenas.profilers.measure.statistics import count_processes_needed

# A rejected process is replaced, until three times as many as are wanted have been tried.
_MAX_TRIES = 3


class Turn(NamedTuple):
    """The turn of a model, by its index, in a round."""

    number: int
    round: int


class MeasuringRounds:
    """Models that are measured together: in each round every model gets one process, so that drift affects all alike.

    Models whose interval is still too wide after ``settings.processes`` get more processes; the others do not.
    Rejected processes are repeated later. Nothing is run here: ``MeasuringSession.measure`` runs the turns.

    Args:
        models: ONNX or TFLite files.
        target: How they are run.
        settings: How long and how often each is run.
        inputs: What the models are given; by default what can be made up.
        recorded: Earlier measurements of each model. Rejected ones among them do not count.
        on_process: Called with the index of a model and its new measurement as soon as it is there.

    Attributes:
        files: The models as they were read.
        settings: How long and how often each is run.
        inputs: What the models are given.

    Raises:
        UsageError: A file cannot be read or the target's runtime does not run it.
    """

    def __init__(
        self,
        models: Sequence[str | Path],
        target: Target,
        settings: MeasureSettings | None = None,
        *,
        inputs: ModelInputs | None = None,
        recorded: Sequence[Sequence[Measurement]] = (),
        on_process: Callable[[int, Measurement], None] = lambda number, measurement: None,
    ) -> None:
        self.inputs = inputs or ModelInputs()
        self.files = read_model_files([Path(model) for model in models], target)
        self.settings = settings or MeasureSettings()
        self._taken = [[each for each in earlier if not each.is_rejected] for earlier in recorded]
        self._taken = self._taken or [[] for _ in self.files]
        self._next_round = 1 + max((each.round for earlier in recorded for each in earlier), default=-1)
        self._failed: dict[int, ModelError] = {}
        self._on_process = on_process

    def missing_processes_by_model(self) -> dict[int, int]:
        """Return how many more processes each model needs now, by its index; models that need none are absent."""
        pending = {number: taken for number, taken in enumerate(self._taken) if number not in self._failed}
        enough = all(len(taken) >= self.settings.processes for taken in pending.values())
        if enough and all(measurement.is_rejected for taken in pending.values() for measurement in taken):
            return {}  # the governor rejects all, for example: more processes would be rejected too
        missing = {number: self._count_missing(taken) for number, taken in pending.items()}
        return {number: processes for number, processes in missing.items() if processes > 0}

    def next_turns(self) -> list[Turn]:
        """Return the processes that are missing now, in the order to run them; empty when all is done."""
        missing = self.missing_processes_by_model()
        return [
            Turn(number, self._next_round + offset)
            for offset in range(max(missing.values(), default=0))
            for number, processes in missing.items()
            if processes > offset
        ]

    def add(self, turn: Turn, outcome: Measurement | ModelError) -> None:
        """Add a model's process. A model that fails once is a failure, whatever its earlier processes were."""
        number, processes = turn.number, len(self._taken[turn.number])
        if isinstance(outcome, ModelError):
            if processes:
                times = f"{processes} process{'es' * (processes > 1)}"
                outcome = ModelError(f"{outcome}; it failed after {times} in which it ran")
            self._failed.setdefault(number, outcome)
            return
        self._next_round = max(self._next_round, turn.round + 1)
        measurement = replace(outcome, round=turn.round, taken_s=time.time())
        self._taken[number].append(measurement)
        self._on_process(number, measurement)

    def outcomes(self) -> list[MeasurementResult | ModelError | None]:
        """Return the result of each model, in order.

        An error stands for a model that the runtime cannot run, None for a model
        without any process, since the device vanished before.
        """
        usual_ms = median_probe_ms([measurement for taken in self._taken for measurement in taken])
        assessed = [[measurement_with_probe_deviation(one, usual_ms) for one in taken] for taken in self._taken]
        return [
            self._failed.get(number)
            or (MeasurementResult.from_measurements(taken, self.settings.processes) if taken else None)
            for number, taken in enumerate(assessed)
        ]

    def _count_missing(self, taken: Sequence[Measurement]) -> int:
        settings = self.settings
        medians = [measurement.median_ms for measurement in taken if not measurement.is_rejected]
        spent_s = sum(measurement.device_s for measurement in taken)
        if len(taken) >= settings.processes and spent_s >= settings.total_seconds:
            return 0
        if len(medians) < settings.processes:
            return min(settings.processes - len(medians), _MAX_TRIES * settings.processes - len(taken))
        if len(medians) < 2 or len(taken) >= settings.max_processes:
            return 0
        needed = count_processes_needed(medians, settings.relative_half_width) - len(medians)
        affordable = 1 + int((settings.total_seconds - spent_s) / max(1e-9, spent_s / len(taken)))
        return min(needed, affordable, settings.max_processes - len(taken))
