"""Measuring models together, one process of each in turn, until the median of each is known well enough."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edgenas.devices import Deadline, Device, Target
from edgenas.errors import DeviceError, ModelError
from edgenas.files import sha256_hex
from edgenas.profilers.measure.cpu_speed import measurement_with_probe_deviation, median_probe_ms
from edgenas.profilers.measure.measurement import Measurement
from edgenas.profilers.measure.protocol import LOCK_SECONDS, read_model_files
from edgenas.profilers.measure.reference_model import (
    INTERVAL,
    MIN_REFERENCES,
    SETTINGS,
    DriftMonitor,
    iter_turns_with_reference,
    measurement_with_drift,
    try_build_reference_model,
)
from edgenas.profilers.measure.result import MeasurementResult
from edgenas.profilers.measure.session import iter_measurements
from edgenas.profilers.measure.settings import MeasureSettings
from edgenas.profilers.measure.statistics import count_processes_needed
from edgenas.profilers.measure.validity import format_drift_problem
from edgenas.runtimes import load_runtime

# A rejected process is replaced, until three times as many as are wanted have been tried.
_MAX_TRIES = 3

OnProcess = Callable[[int | None, Measurement], None]


class Batch:
    """Models that are measured together, in rounds: in each round every model gets one process.

    Models whose interval is still too wide after ``settings.processes`` get more
    processes; the others do not. Rejected processes are repeated later.

    Where a reference model would run ten times or more, it runs before the first
    process and after every tenth. Processes are rejected while it is far off its
    usual latency (``reference_model``).

    Args:
        models: ONNX or TFLite files.
        target: how they are run.
        settings: how long and how often each is run.
        recorded: earlier measurements of each model. Rejected ones among them do not count.
        monitor: the drift monitor of a longer series that this batch belongs to. With
            it, the reference model always runs.
        on_process: called with every new measurement as soon as it is there, and the index of its
            model, None for the reference model.

    Raises:
        UsageError: for a file that cannot be read or that the target's runtime does not run.
    """

    def __init__(
        self,
        models: Sequence[Path],
        target: Target,
        settings: MeasureSettings | None = None,
        *,
        recorded: Sequence[Sequence[Measurement]] = (),
        monitor: DriftMonitor | None = None,
        on_process: OnProcess = lambda number, measurement: None,
    ) -> None:
        self._models, self._target, self._settings = list(models), target, settings or MeasureSettings()
        distinct = list(dict.fromkeys(self._models))
        self._files = dict(zip(distinct, read_model_files(distinct, target), strict=True))
        self._taken = [list(earlier) for earlier in recorded] or [[] for _ in self._models]
        self._recorded_counts = [len(earlier) for earlier in self._taken]
        self._failed: dict[int, ModelError] = {}
        self._is_series, self._monitor = monitor is not None, DriftMonitor() if monitor is None else monitor
        self._on_process = on_process

    def measure_missing(self, device: Device) -> None:
        """Measure what is missing. After an error, ``measure_missing`` may be called again and continues.

        Raises:
            DeviceError: when the device vanishes, or its speed changed for good.
        """
        if not self._is_series:
            self._monitor.forget_lasting_change()
        with device.lock(Deadline(LOCK_SECONDS)):
            while missing := self.missing_processes_by_model():
                self._run_processes(device, missing)

    def missing_processes_by_model(self) -> dict[int, int]:
        """Return how many more processes each model needs now, by its index; models that need none are absent."""
        assessed = enumerate(self._assess_measurements())
        pending = {number: taken for number, taken in assessed if number not in self._failed}
        enough = all(len(taken) >= self._settings.processes for taken in pending.values())
        if enough and all(measurement.is_rejected for taken in pending.values() for measurement in taken):
            return {}  # the governor rejects all, for example: more processes would be rejected too
        missing = {number: self._count_missing(taken) for number, taken in pending.items()}
        return {number: processes for number, processes in missing.items() if processes > 0}

    def outcomes(self) -> list[MeasurementResult | ModelError | None]:
        """Return the result of each model, in order.

        An error stands for a model that the runtime cannot run, None for a model
        without any process, since the device vanished before.
        """
        return [
            self._failed.get(number)
            or (MeasurementResult.from_measurements(taken, self._settings.processes) if taken else None)
            for number, taken in enumerate(self._assess_measurements())
        ]

    def _assess_measurements(self) -> list[list[Measurement]]:
        """Return each model's measurements with drift and probe deviation, without recorded ones that are rejected."""
        usual_ms = median_probe_ms([measurement for taken in self._taken for measurement in taken])
        kept = []
        for taken, recorded in zip(self._taken, self._recorded_counts, strict=True):
            assessed = [
                measurement_with_probe_deviation(measurement_with_drift(one, self._monitor, self._target), usual_ms)
                for one in taken
            ]
            kept.append([one for index, one in enumerate(assessed) if index >= recorded or not one.is_rejected])
        return kept

    def _count_missing(self, taken: Sequence[Measurement]) -> int:
        settings = self._settings
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

    def _run_processes(self, device: Device, missing: dict[int, int]) -> None:
        """Run that many processes of each model, in rounds, in one run of the agent."""
        first_round = max(len(taken) for taken in self._taken)
        turns = [
            (number, first_round + offset)
            for offset in range(max(missing.values()))
            for number, processes in missing.items()
            if processes > offset
        ]
        with self._hold_reference_file(len(turns)) as reference:
            order = list(iter_turns_with_reference(turns)) if reference else list(turns)
            paths = [self._models[turn[0]] if turn else reference for turn in order]
            outcomes = iter_measurements(
                [path for path in paths if path],
                self._target,
                device=device,
                settings=self._settings,
                exceptions={reference: SETTINGS} if reference else None,
                checked=self._files,
            )
            with contextlib.closing(outcomes):
                for turn, outcome in zip(order, outcomes, strict=True):
                    if turn is None:
                        self._add_reference(outcome)
                    else:
                        self._add_outcome(*turn, outcome)

    def _add_reference(self, outcome: Measurement | ModelError) -> None:
        """Add a process of the reference model; a reference that cannot run is done without."""
        if isinstance(outcome, ModelError):
            return
        reference = replace(outcome, taken_s=time.time())
        self._monitor.add(reference)
        self._on_process(None, reference)
        change = self._monitor.find_lasting_change()
        if change is not None:
            raise DeviceError(f"{self._target.profile.name}: {format_drift_problem(change)}")

    def _add_outcome(self, number: int, round_number: int, outcome: Measurement | ModelError) -> None:
        """Add a model's process. A model that fails once is a failure, whatever its earlier processes were."""
        processes = len(self._taken[number])
        if isinstance(outcome, ModelError):
            if processes:
                times = f"{processes} process{'es' * (processes > 1)}"
                outcome = ModelError(f"{outcome}; it failed after {times} in which it ran")
            self._failed.setdefault(number, outcome)
            return
        measurement = replace(outcome, round=round_number, taken_s=time.time())
        self._taken[number].append(measurement)
        self._on_process(number, measurement)

    @contextlib.contextmanager
    def _hold_reference_file(self, processes: int) -> Iterator[Path | None]:
        """Write the reference model to a temporary file; None for few processes, or where it cannot be made."""
        runtime = load_runtime(self._target.runtime)
        wanted = self._is_series or len(self._monitor) > 0 or processes > INTERVAL * (MIN_REFERENCES - 1)
        model = try_build_reference_model(runtime) if wanted else None
        if model is None:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="edgenas-") as folder:
            path = Path(folder) / f"{sha256_hex(model)}{runtime.suffix}"
            path.write_bytes(model)
            yield path
