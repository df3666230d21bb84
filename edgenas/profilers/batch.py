"""Measuring models: in rounds of processes, until each is known well enough."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edgenas.devices import Device, Target, connect
from edgenas.errors import ModelError
from edgenas.files import digest
from edgenas.profilers.measure import measure_many, with_drift
from edgenas.profilers.measurement import Measurement
from edgenas.profilers.reference import LEAST, SETTINGS, drift, reference_model, with_reference
from edgenas.profilers.request import ENDINGS, check_models
from edgenas.profilers.rounds import Rounds
from edgenas.profilers.settings import MeasureSettings
from edgenas.profilers.statistics import processes_needed

# A process that was refused is replaced, until three times as many as are wanted have been tried.
_TRIES = 3

OnProcess = Callable[[int | None, Measurement], None]


def measure(model: Path | str, target: Target, settings: MeasureSettings | None = None) -> Rounds:
    """Measure one model file on its target's device, in six processes or more.

    Raises UsageError for a file that cannot be read or is of an unknown kind,
    ModelError when the runtime refuses it or it kills its process, DeviceError
    when the device vanishes.
    """
    batch = Batch([Path(model)], target, settings)
    with connect(target.profile) as device:
        batch.run(device)
    (found,) = batch.results()
    if isinstance(found, ModelError):
        raise found
    assert found is not None
    return found


class Batch:
    """Models measured together, in rounds: in each, every model gets one process.

    In a batch of 16 processes or more a reference model runs before the first
    and after every tenth, so that a device that became slower or faster is seen
    and corrected for. Processes whose measurement was refused are tried again
    later. Models whose interval is still too wide after ``settings.processes``
    get more; the others do not.

    ``taken``: what is there already, for each model; ``references``: medians of
    the reference's earlier processes, in ms. ``on_process`` is given every new
    measurement as soon as it is there, with the number of its model, None for
    the reference. Raises UsageError for a file that cannot be read or that the
    target's runtime does not run.
    """

    def __init__(
        self,
        models: Sequence[Path],
        target: Target,
        settings: MeasureSettings | None = None,
        *,
        taken: Sequence[Sequence[Measurement]] = (),
        references: Sequence[float] = (),
        on_process: OnProcess = lambda number, measurement: None,
    ) -> None:
        self._models, self._target, self._settings = list(models), target, settings or MeasureSettings()
        check_models(list(dict.fromkeys(self._models)), target)
        self._taken = [list(each) for each in taken] or [[] for _ in self._models]
        self._failed: dict[int, ModelError] = {}
        self._references = list(references)
        self._on_process = on_process

    def run(self, device: Device) -> None:
        """Measure what is missing. Raises DeviceError when the device vanishes; ``run`` again goes on there."""
        while wanted := self.wanted():
            self._pass(device, wanted)

    def wanted(self) -> dict[int, int]:
        """How many more processes each model needs now; models that need none are left out.

        Depends on nothing but what was taken: a batch that is taken up again goes on as if it had not been left.
        """
        if self._hopeless():
            return {}
        missing = {number: self._missing(number) for number in range(len(self._models)) if number not in self._failed}
        return {number: processes for number, processes in missing.items() if processes > 0}

    def results(self) -> list[Rounds | ModelError | None]:
        """What is known of each model: None where the device vanished before its first process."""
        return [self._result(number) for number in range(len(self._models))]

    def _result(self, number: int) -> Rounds | ModelError | None:
        if number in self._failed:
            return self._failed[number]
        taken = self._taken[number]
        return Rounds.of(taken, self._settings.processes) if taken else None

    def _hopeless(self) -> bool:
        """Everything was refused, the governor's way: more of it would be too."""
        taken = [each for number, each in enumerate(self._taken) if number not in self._failed]
        enough = all(len(each) >= self._settings.processes for each in taken)
        return enough and all(one.verdict.status == "refused" for each in taken for one in each)

    def _missing(self, number: int) -> int:
        settings, taken = self._settings, self._taken[number]
        medians = [each.median_ms for each in taken if each.verdict.status != "refused"]
        if len(medians) < settings.processes:
            return min(settings.processes - len(medians), _TRIES * settings.processes - len(taken))
        spent = sum(each.device_s for each in taken)
        if len(medians) < 2 or len(taken) >= settings.max_processes or spent >= settings.total_seconds:
            return 0
        needed = processes_needed(medians, settings.relative_half_width) - len(medians)
        affordable = 1 + int((settings.total_seconds - spent) / max(1e-9, spent / len(taken)))
        return min(needed, affordable, settings.max_processes - len(taken))

    def _pass(self, device: Device, wanted: dict[int, int]) -> None:
        """Run that many processes of each model, round by round."""
        first = max(len(taken) for taken in self._taken)
        rounds = [[number for number, left in wanted.items() if left > turn] for turn in range(max(wanted.values()))]
        turns = [(number, first + turn) for turn, numbers in enumerate(rounds) for number in numbers]
        with self._reference(len(turns)) as reference:
            order = list(with_reference(turns)) if reference else list(turns)
            files = [self._models[turn[0]] if turn else reference for turn in order]
            outcomes = measure_many(
                [file for file in files if file],
                self._target,
                device=device,
                settings=self._settings,
                exceptions={reference: SETTINGS} if reference else None,
            )
            for turn, outcome in zip(order, outcomes, strict=True):
                self._keep(turn, outcome)

    def _keep(self, turn: tuple[int, int] | None, outcome: Measurement | ModelError) -> None:
        """Take one outcome in: of the reference, or of a model in a round."""
        if turn is None:
            if isinstance(outcome, Measurement):
                self._references.append(outcome.median_ms)
                self._on_process(None, outcome)
            return
        number, place = turn
        if isinstance(outcome, ModelError):
            self._failed[number] = outcome
            return
        measurement = replace(outcome, round=place)
        drifted = drift(self._references)
        if drifted is not None:
            measurement = with_drift(measurement, drifted, self._target)
        self._taken[number].append(measurement)
        self._on_process(number, measurement)

    @contextlib.contextmanager
    def _reference(self, turns: int) -> Iterator[Path | None]:
        """The reference model as a file, while it is needed; None for few turns, and where it cannot be made."""
        (ending, *_) = ENDINGS[self._target.runtime]
        model = reference_model(ending) if self._references or turns >= LEAST else None
        if model is None:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="edgenas-") as folder:
            path = Path(folder) / f"{digest(model)}{ending}"
            path.write_bytes(model)
            yield path
