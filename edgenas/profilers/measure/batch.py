"""Measuring models: in rounds of processes, until each is known well enough."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edgenas.devices import Deadline, Device, Target, connect_device
from edgenas.errors import DeviceError, ModelError
from edgenas.files import digest
from edgenas.profilers.measure.baseline_speed import at_baseline, baseline_probe
from edgenas.profilers.measure.measurement import Measurement
from edgenas.profilers.measure.protocol import ENDINGS, check_models
from edgenas.profilers.measure.reference_model import (
    EVERY,
    LEAST,
    SETTINGS,
    DriftMonitor,
    reference_model,
    with_reference,
)
from edgenas.profilers.measure.result import MeasurementResult
from edgenas.profilers.measure.session import measure_many, with_drift
from edgenas.profilers.measure.settings import MeasureSettings
from edgenas.profilers.measure.statistics import processes_needed
from edgenas.profilers.measure.validity import drift_problem

# A process that was refused is replaced, until three times as many as are wanted have been tried.
_TRIES = 3
_LOCK_SECONDS = 600.0

OnProcess = Callable[[int | None, Measurement], None]


def measure_model(model: Path | str, target: Target, settings: MeasureSettings | None = None) -> MeasurementResult:
    """Measure one model file on its target's device, in six processes or more.

    Raises UsageError for a file that cannot be read or is of an unknown kind,
    ModelError when the runtime refuses it or it kills its process, DeviceError
    when the device vanishes.
    """
    batch = Batch([Path(model)], target, settings)
    with connect_device(target.profile) as device:
        batch.run(device)
    (found,) = batch.results()
    if isinstance(found, ModelError):
        raise found
    assert found is not None
    return found


class Batch:
    """Models measured together, in rounds: in each, every model gets one process.

    Results are at the pace of the CPU that is usual on the device (``pace``).
    Where a reference model would run ten times or more, it runs before the first
    process and after every tenth: a process that met another device is refused
    (``reference.drift``), and where processes have no pace, what it says of the
    device's speed around each is divided away. Processes whose measurement was refused are
    tried again later. Models whose interval is still too wide after
    ``settings.processes`` get more; the others do not.

    ``taken``: what is there already, for each model; what of it was refused
    counts neither for nor against the model. ``watch``: the reference's
    processes of a series that this batch belongs to; with it, the reference
    always runs. ``on_process`` is given every new measurement as soon as it is
    there, as it was taken, with the number of its model, None for the reference.
    Raises UsageError for a file that cannot be read or that the target's runtime
    does not run.
    """

    def __init__(
        self,
        models: Sequence[Path],
        target: Target,
        settings: MeasureSettings | None = None,
        *,
        taken: Sequence[Sequence[Measurement]] = (),
        watch: DriftMonitor | None = None,
        on_process: OnProcess = lambda number, measurement: None,
    ) -> None:
        self._models, self._target, self._settings = list(models), target, settings or MeasureSettings()
        distinct = list(dict.fromkeys(self._models))
        self._files = dict(zip(distinct, check_models(distinct, target), strict=True))
        self._taken = [list(each) for each in taken] or [[] for _ in self._models]
        self._earlier = [len(each) for each in self._taken]
        self._failed: dict[int, ModelError] = {}
        self._series, self._watch = watch is not None, DriftMonitor() if watch is None else watch
        self._on_process = on_process

    def run(self, device: Device) -> None:
        """Measure what is missing.

        Raises DeviceError when the device vanishes, and when it changed its
        speed for good; ``run`` again goes on there.
        """
        if not self._series:
            self._watch.restart()
        with device.lock(Deadline(_LOCK_SECONDS)):
            while wanted := self.wanted():
                self._pass(device, wanted)

    def wanted(self) -> dict[int, int]:
        """How many more processes each model needs now; models that need none are left out."""
        every = self._known()
        known = {number: every[number] for number in range(len(self._models)) if number not in self._failed}
        if self._hopeless(list(known.values())):
            return {}
        missing = {number: self._missing(taken) for number, taken in known.items()}
        return {number: processes for number, processes in missing.items() if processes > 0}

    def results(self) -> list[MeasurementResult | ModelError | None]:
        """What is known of each model: None where the device vanished before its first process."""
        return [self._result(number, known) for number, known in enumerate(self._known())]

    def _result(self, number: int, known: Sequence[Measurement]) -> MeasurementResult | ModelError | None:
        if number in self._failed:
            return self._failed[number]
        return MeasurementResult.of(known, self._settings.processes) if known else None

    def _known(self) -> list[list[Measurement]]:
        """What was taken of each model, at one pace, with the drift that was seen.

        Without what was refused at an earlier time.
        """
        found = [[with_drift_at(each, self._watch, self._target) for each in taken] for taken in self._taken]
        kept = [
            [each for place, each in enumerate(taken) if place >= earlier or not each.rejected]
            for taken, earlier in zip(found, self._earlier, strict=True)
        ]
        usual = baseline_probe([each for taken in kept for each in taken])
        return [[at_baseline(each, usual) for each in taken] for taken in kept]

    def _hopeless(self, known: Sequence[Sequence[Measurement]]) -> bool:
        """Everything was refused, the governor's way: more of it would be too."""
        enough = all(len(each) >= self._settings.processes for each in known)
        return enough and all(one.rejected for each in known for one in each)

    def _missing(self, taken: Sequence[Measurement]) -> int:
        settings = self._settings
        medians = [each.median_ms for each in taken if not each.rejected]
        spent = sum(each.device_s for each in taken)
        if len(taken) >= settings.processes and spent >= settings.total_seconds:
            return 0
        if len(medians) < settings.processes:
            return min(settings.processes - len(medians), _TRIES * settings.processes - len(taken))
        if len(medians) < 2 or len(taken) >= settings.max_processes:
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
            paths = [self._models[turn[0]] if turn else reference for turn in order]
            outcomes = measure_many(
                [path for path in paths if path],
                self._target,
                device=device,
                settings=self._settings,
                exceptions={reference: SETTINGS} if reference else None,
                checked=self._files,
            )
            with contextlib.closing(outcomes):
                for turn, outcome in zip(order, outcomes, strict=True):
                    self._keep(turn, outcome)

    def _keep(self, turn: tuple[int, int] | None, outcome: Measurement | ModelError) -> None:
        """Take one outcome in: of the reference, or of a model in a round."""
        if isinstance(outcome, ModelError):
            if turn is not None:
                self._failed.setdefault(turn[0], self._after(len(self._taken[turn[0]]), outcome))
            return
        if turn is None:
            reference = replace(outcome, taken_s=time.time())
            self._watch.add(reference)
            self._on_process(None, reference)
            self._check_speed()
            return
        number, place = turn
        measurement = replace(outcome, round=place, taken_s=time.time())
        self._taken[number].append(measurement)
        self._on_process(number, measurement)

    def _after(self, processes: int, error: ModelError) -> ModelError:
        """The error of a model that ran before: such a one is not to be trusted, but nor does it always fail."""
        if not processes:
            return error
        return ModelError(f"{error}; it failed after {processes} process{'es' * (processes > 1)} in which it ran")

    def _check_speed(self) -> None:
        changed = self._watch.changed()
        if changed is not None:
            raise DeviceError(f"{self._target.profile.name}: {drift_problem(changed)}")

    @contextlib.contextmanager
    def _reference(self, turns: int) -> Iterator[Path | None]:
        """The reference model as a file, while it is needed; None for few turns, and where it cannot be made."""
        (ending, *_) = ENDINGS[self._target.runtime]
        watched = self._series or len(self._watch) > 0 or turns > EVERY * (LEAST - 1)
        model = reference_model(ending) if watched else None
        if model is None:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="edgenas-") as folder:
            path = Path(folder) / f"{digest(model)}{ending}"
            path.write_bytes(model)
            yield path


def with_drift_at(measurement: Measurement, watch: DriftMonitor, target: Target) -> Measurement:
    """A measurement with the drift that the reference showed at its time, as it is where nobody knows."""
    found = watch.drift(measurement.taken_s)
    return measurement if found is None else with_drift(measurement, found, target)
