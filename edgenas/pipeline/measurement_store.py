"""A run's measurements: taken once, stored at once, never taken again."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from edgenas.devices import Device, Target, connect_device
from edgenas.errors import FormatError, MeasurementError, ModelError
from edgenas.files import TEMPORARY_SUFFIX, canonical_json, digest
from edgenas.pipeline.export_formats import format_of
from edgenas.profilers import MIN_PROCESSES, Batch, Measurement, MeasurementResult, MeasureSettings
from edgenas.profilers.measure.baseline_speed import at_common_baseline
from edgenas.profilers.measure.measurement import differences
from edgenas.profilers.measure.reference_model import DriftMonitor, add_drift

T = TypeVar("T")
# How chosen and exported files are measured: in six processes.
SETTINGS = MeasureSettings(max_processes=MIN_PROCESSES, max_seconds=1.0, max_runs=500)
# The folder of the reference model's measurements, beside those of the models.
_REFERENCE = "reference"


class Measurer:
    """Measures model files on a target, through a folder of recorded measurements.

    The device is connected to only when something is not recorded yet. A
    context manager; leaving it closes the device. ``since_s``: what the
    reference model showed before that time (seconds since 1970) is of another
    series, and says nothing of this one.
    """

    def __init__(self, folder: Path, target: Target, settings: MeasureSettings, *, since_s: float = 0.0) -> None:
        self._folder, self._target, self._settings, self._since_s = folder, target, settings, since_s
        self._device: Device | None = None
        self._known: Measurement | None = None  # any of the folder: all are of its device and runtime
        # Whatever decides what a number means is in its file's name.
        described = [target.to_dict(), target.profile.connection.kind, target.profile.python, settings.to_dict()]
        self._key = digest(canonical_json(described))[:8]

    def __enter__(self) -> Measurer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._device is not None:
            self._device.close()

    def measure(
        self, models: Sequence[bytes], on_result: Callable[[Measurement], None] = lambda measurement: None
    ) -> list[Measurement]:
        """The first measurement of each model that was not refused, in order; a refused one where all were.

        For a series of many models, call by call: the reference model runs
        between them, and ``corrected`` says in the end what it saw. Raises
        ModelError for a model that the runtime refuses, MeasurementError when
        the device or its runtime is not the recorded ones' any more, DeviceError
        when it changed its speed for good.
        """
        return [_sound(found) for found in self.tried(models, on_result)]

    def tried(
        self, models: Sequence[bytes], on_result: Callable[[Measurement], None] = lambda measurement: None
    ) -> list[Measurement | ModelError]:
        """As ``measure``; a model that the runtime refuses, or that kills its process, gives its error instead."""
        taken = self.rounds(models, on_result)
        return [each if isinstance(each, ModelError) else each.measurements[0] for each in taken]

    def rounds(
        self, models: Sequence[bytes], on_result: Callable[[Measurement], None] = lambda measurement: None
    ) -> list[MeasurementResult | ModelError]:
        """As ``tried``, with all processes of each model that the settings ask for."""
        return self._take(models, on_result, self._watch)

    def corrected(self, measurements: Sequence[Measurement], until_s: float = math.inf) -> list[Measurement]:
        """Measurements at one pace, with the drift that the reference showed around their time, before and after it.

        What it showed after ``until_s`` (seconds since 1970) is left out.
        """
        watch = self._watch if until_s == math.inf else DriftMonitor(self.reference_processes(until_s))
        return at_common_baseline([add_drift(each, watch, self._target) for each in measurements])

    def reference_processes(self, until_s: float = math.inf) -> list[Measurement]:
        """The reference model's processes up to a time, those recorded earlier among them."""
        return [each for each in self._references if each.taken_s <= until_s]

    def taken(self, model_sha256: str) -> Measurement | None:
        """The first measurement of a model that is recorded and was not refused."""
        usable = (each for each in self._recorded(model_sha256) if not each.rejected)
        return next(usable, None)

    @property
    def reference_ms(self) -> float | None:
        """What the reference model usually takes, ms, which ``corrected`` brings measurements to; None if never run."""
        return self._watch.baseline_ms

    def has(self, model: bytes) -> bool:
        """Whether anything is recorded of a model."""
        return self._path(digest(model), 0).exists()

    def prove(self, model: bytes) -> MeasurementResult:
        """A model measured in as many processes as the settings say; refused ones do not count, and are replaced.

        Raises MeasurementError with the remedy when the device's conditions
        allow no trust in six of them; called again, it tries anew.
        """
        rounds = self._proof(model)
        if not rounds.problems and self.recorded(model) is None:
            rounds = self._proof(model)  # a few good ones completed one of which most was refused: it begins anew
        if rounds.problems:
            raise MeasurementError(
                f"{self._target.name}: too few measurements of the file can be trusted: {rounds.problems[-1]}"
            )
        return rounds

    def _proof(self, model: bytes) -> MeasurementResult:
        (found,) = self._take([model], lambda measurement: None)
        return _sound(found)

    def recorded(self, model: bytes) -> MeasurementResult | None:
        """The measurements of a model that were not refused, if six have been taken."""
        taken = _usable(self._recorded(digest(model)), MIN_PROCESSES)
        return (
            MeasurementResult.from_measurements(at_common_baseline(taken))
            if sum(not each.rejected for each in taken) >= MIN_PROCESSES
            else None
        )

    def _recorded(self, model_sha256: str) -> list[Measurement]:
        found: list[Measurement] = []
        while (path := self._path(model_sha256, len(found))).exists():
            found.append(_load(path))
        return found

    def _take(
        self, models: Sequence[bytes], on_result: Callable[[Measurement], None], watch: DriftMonitor | None = None
    ) -> list[MeasurementResult | ModelError]:
        """Measure what is not recorded, and record each process as soon as it is there."""
        distinct = list(dict.fromkeys(models))
        recorded = [self._recorded(digest(model)) for model in distinct]
        counts = [len(each) for each in recorded]
        taken = [_usable(each, self._settings.processes) for each in recorded]

        def keep(number: int | None, measurement: Measurement) -> None:
            self._check_same(measurement)
            if number is None:
                self._references.append(measurement)
                measurement.save(self._reference_path(measurement))
                return
            measurement.save(self._path(measurement.model_sha256, counts[number]))
            counts[number] += 1
            on_result(measurement)

        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".models-", suffix=TEMPORARY_SUFFIX, dir=self._folder) as folder:
            files = [Path(folder) / f"{digest(model)}.{format_of(self._target).format}" for model in distinct]
            for file, model in zip(files, distinct, strict=True):
                file.write_bytes(model)
            batch = Batch(files, self._target, self._settings, recorded=taken, monitor=watch, on_process=keep)
            if batch.missing_processes():
                batch.run(self._connected())
        found = dict(zip(distinct, batch.results(), strict=True))
        return [_there(found[model]) for model in models]

    @cached_property
    def _references(self) -> list[Measurement]:
        """The reference model's processes, with those recorded earlier."""
        recorded = [_load(path) for path in sorted((self._folder / _REFERENCE).glob(f"{self._key}-*.json"))]
        return [each for each in recorded if each.taken_s >= self._since_s]

    @cached_property
    def _watch(self) -> DriftMonitor:
        """What these say about the device."""
        return DriftMonitor(self._references)

    def _reference_path(self, measurement: Measurement) -> Path:
        """Where the next of the reference's measurements goes."""
        folder = self._folder / _REFERENCE
        folder.mkdir(exist_ok=True)
        return folder / f"{self._key}-{len(list(folder.glob(f'{self._key}-*.json'))):06d}.json"

    def _connected(self) -> Device:
        """The device, connected to at the first call."""
        if self._device is None:
            # First what is recorded: where that cannot be read, the device's time would be lost.
            first = next(iter(sorted(self._folder.glob("*.json"))), None)
            self._known = None if first is None else _load(first)
            self._device = connect_device(self._target.profile)
        return self._device

    def _check_same(self, now: Measurement) -> None:
        """Raises MeasurementError where the folder's measurements are of another device or version of the runtime."""
        if self._known is None:
            self._known = now
        for what, name, then, found in differences(self._known, now):
            raise MeasurementError(
                f"{self._target.name}: has another {what} than its recorded measurements ({name} was {then}, is"
                f" {found} now); bring that back, give its profile another name, or move {self._folder} away"
            )

    def _path(self, model_sha256: str, number: int) -> Path:
        return self._folder / f"{model_sha256[:24]}-{self._key}-{number}.json"


def _usable(recorded: list[Measurement], processes: int) -> list[Measurement]:
    """What of a model's record still counts: of the last proof, but nothing of one of which most was refused.

    Whatever begins anew begins with round 0. Refused ones from before the last so many good ones are past.
    """
    begun = max((place for place, each in enumerate(recorded) if each.round == 0), default=0)
    proof = recorded[begun:]
    places = [place for place, each in enumerate(proof) if not each.rejected]
    start = places[-processes] if len(places) >= processes else 0
    latest = proof[start:]
    refused = sum(each.rejected for each in latest)
    if len(places) >= processes and refused > len(latest) - refused:
        return []
    return [each for place, each in enumerate(proof) if place >= start or not each.rejected]


def _load(path: Path) -> Measurement:
    """A recorded measurement; raises FormatError that says what to do with all of them."""
    try:
        return Measurement.load(path)
    except FormatError as error:
        raise FormatError(f"{error}; if others of {path.parent} are like it, move that folder away") from None


def _there(found: MeasurementResult | ModelError | None) -> MeasurementResult | ModelError:
    assert found is not None  # a device that vanished has raised
    return found


def _sound(found: T | ModelError) -> T:
    """What is no error; raises what is one."""
    if isinstance(found, ModelError):
        raise found
    return found
