"""A target's measurements in a run: each model is measured once, stored at once, and never measured again."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from types import TracebackType

from edgenas.devices import Target
from edgenas.errors import MeasurementError, ModelError
from edgenas.files import TEMPORARY_SUFFIX, canonical_json_bytes, format_value, sha256_hex, write_bytes
from edgenas.pipeline.export_formats import format_of
from edgenas.pipeline.measurement_log import MeasurementLog
from edgenas.profilers import (
    MIN_PROCESSES,
    Measurement,
    MeasurementResult,
    MeasureSettings,
    MeasuringRounds,
    MeasuringSession,
)
from edgenas.profilers.measure.measurement import incomparable_facts

# How chosen and exported files are measured: in six processes.
SETTINGS = MeasureSettings(max_processes=MIN_PROCESSES, max_seconds=1.0, max_runs=500)

OnMeasurement = Callable[[Measurement], None]


class MeasurementStore:
    """Measures model files on a target, and reads what is recorded in the target's log.

    The device is connected to only when something is not recorded yet. Use it
    as a context manager: leaving it closes the device.

    Args:
        log: The target's log of measurements.
        target: The device, runtime and precision.
        settings: How to measure. Measurements with other settings, another target, connection or interpreter
            are another series, which is neither read nor changed.
        since_s: What was recorded before this time (seconds since 1970) is measured again.
    """

    def __init__(self, log: MeasurementLog, target: Target, settings: MeasureSettings, *, since_s: float = 0.0) -> None:
        self._log, self._target, self._settings, self._since_s = log, target, settings, since_s
        self._session = MeasuringSession(target)
        described = [target.to_dict(), target.profile.connection.kind, target.profile.python, settings.to_dict()]
        self._series = sha256_hex(canonical_json_bytes(described))[:8]

    def __enter__(self) -> MeasurementStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._session.__exit__(kind, error, traceback)

    def measure(
        self, models: Sequence[bytes], on_measurement: OnMeasurement = lambda measurement: None
    ) -> list[MeasurementResult | ModelError]:
        """Measure what is not recorded of models in rounds, and store each process as soon as it has ended.

        Args:
            models: The contents of the model files. Equal ones are measured once.
            on_measurement: Is given each new measurement as soon as it is stored.

        Returns:
            For each model the result of all processes that the settings ask for, or the error of one that the
            runtime refuses or that kills its process.

        Raises:
            MeasurementError: The device or its runtime is not the recorded ones' any more.
            DeviceError: The device vanished.
        """
        distinct = list(dict.fromkeys(models))

        def store(number: int, measurement: Measurement) -> None:
            self._check_comparable(measurement)
            self._log.append(self._series, measurement)
            on_measurement(measurement)

        folder = self._log.path.with_name(f".models{TEMPORARY_SUFFIX}")
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            files = [folder / f"{sha256_hex(model)}.{format_of(self._target).format}" for model in distinct]
            for file, model in zip(files, distinct, strict=True):
                write_bytes(file, model)
            recorded = [self._log.of_model(self._series, sha256_hex(model)) for model in distinct]
            recent = [[one for one in processes if one.taken_s >= self._since_s] for processes in recorded]
            current = [_current(processes, self._settings.processes) for processes in recent]
            rounds = MeasuringRounds(files, self._target, self._settings, recorded=current, on_process=store)
            self._session.measure(rounds)
        results = dict(zip(distinct, rounds.outcomes(), strict=True))
        measured = [results[model] for model in models]
        return [result for result in measured if result is not None]  # none is: a device that vanished has raised

    def measure_first(
        self, models: Sequence[bytes], on_measurement: OnMeasurement = lambda measurement: None
    ) -> list[Measurement | ModelError]:
        """Do as ``measure``, and return the first process of each model that was not rejected.

        The first one of a model whose processes were all rejected.
        """
        results = self.measure(models, on_measurement)
        return [result if isinstance(result, ModelError) else result.measurements[0] for result in results]

    def measure_reliably(self, model: bytes) -> MeasurementResult:
        """Return a model's result from as many processes as the settings say, rejected ones replaced.

        Raises:
            MeasurementError: Too few processes are valid; it says the remedy. Called again, it tries anew.
            ModelError: The runtime refuses the model, or it kills its process.
        """
        result = self._measure_accepted(model)
        if self.reliable_result(model) is None:
            # A few accepted processes were added to a result that was mostly rejected: begin a new one.
            result = self._measure_accepted(model)
        return result

    def _measure_accepted(self, model: bytes) -> MeasurementResult:
        (result,) = self.measure([model])
        if isinstance(result, ModelError):
            raise result
        if result.rejection_reasons:
            raise MeasurementError(
                f"{self._target.name}: too few measurements of the file are valid: {result.rejection_reasons[-1]}"
            )
        return result

    def reliable_result(self, model: bytes) -> MeasurementResult | None:
        """Return the recorded result of a model; None when fewer than six processes were not rejected."""
        recorded = _current(self._log.of_model(self._series, sha256_hex(model)), MIN_PROCESSES)
        if sum(not process.is_rejected for process in recorded) < MIN_PROCESSES:
            return None
        return MeasurementResult.from_measurements(recorded)

    def first_accepted(self, model_sha256: str) -> Measurement | None:
        """Return the first recorded process of a model that was not rejected."""
        recorded = self._log.of_model(self._series, model_sha256)
        return next((process for process in recorded if not process.is_rejected), None)

    def has_measured(self, model: bytes) -> bool:
        """Return True when a process of a model is recorded, rejected or not."""
        return self._log.has_model(self._series, sha256_hex(model))

    def _check_comparable(self, measurement: Measurement) -> None:
        """Raise MeasurementError where the log's measurements are of another device or version of the runtime."""
        if not self._log.entries:
            return
        for what, name, then, now in incomparable_facts(self._log.entries[0].measurement, measurement):
            raise MeasurementError(
                f"{self._target.name}: has another {what} than its recorded measurements ({name} was"
                f" {format_value(then)}, is {format_value(now)} now); bring that back, give its profile another name,"
                f" or move {self._log.path} away"
            )


def _current(recorded: list[Measurement], processes: int) -> list[Measurement]:
    """Return the processes of a model's last result that still count; none where most of that was rejected.

    A result begins with round 0. Rejected processes from before the last
    ``processes`` accepted ones are past.
    """
    begin = max((place for place, process in enumerate(recorded) if process.round == 0), default=0)
    last = recorded[begin:]
    accepted = [place for place, process in enumerate(last) if not process.is_rejected]
    if len(accepted) < processes:
        return last
    start = accepted[-processes]
    latest = last[start:]
    if sum(process.is_rejected for process in latest) > len(latest) / 2:
        return []
    return [process for place, process in enumerate(last) if place >= start or not process.is_rejected]
