"""A run's measurements: taken once, stored at once, never taken again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from edgenas.devices import Device, Target, connect
from edgenas.errors import MeasurementError, ModelError
from edgenas.files import TEMPORARY, canonical_json, digest
from edgenas.pipeline.kinds import kind_of
from edgenas.profilers import FEWEST, Batch, Measurement, MeasureSettings, Rounds, sift

# How chosen and exported files are measured: in six processes.
SETTINGS = MeasureSettings(max_processes=FEWEST, max_seconds=1.0, max_runs=500)
# The folder of the reference model's measurements, beside those of the models.
_REFERENCE = "reference"
# Facts that make a device another one.
_FINGERPRINT = ("synthetic", "model", "cpu", "arch", "cores")


class Measurer:
    """Measures model files on a target, through a folder of recorded measurements.

    The device is connected to only when something is not recorded yet. A
    context manager; leaving it closes the device.
    """

    def __init__(self, folder: Path, target: Target, settings: MeasureSettings) -> None:
        self._folder, self._target, self._settings = folder, target, settings
        self._device: Device | None = None
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

        Raises ModelError for a model that the runtime refuses.
        """
        return [rounds.measurements[0] for rounds in self._take(models, on_result)]

    def prove(self, model: bytes) -> Rounds:
        """A model measured in as many processes as the settings say; refused ones do not count, and are replaced.

        Raises MeasurementError with the remedy when the device's conditions
        allow no trust in six of them.
        """
        (rounds,) = self._take([model], lambda measurement: None)
        problems = sift(rounds.measurements)[1]
        if problems:
            raise MeasurementError(
                f"{self._target.name}: too few measurements of the file can be trusted: {problems[-1]}"
            )
        return rounds

    def recorded(self, model: bytes) -> Rounds | None:
        """The measurements of a model that were not refused, if six have been taken."""
        rounds = self._recorded(model)
        return Rounds.of(rounds, FEWEST) if len(sift(rounds)[0]) >= FEWEST else None

    def _recorded(self, model: bytes) -> list[Measurement]:
        name = digest(model)
        found: list[Measurement] = []
        while (path := self._path(name, len(found))).exists():
            found.append(Measurement.load(path))
        return found

    def _take(self, models: Sequence[bytes], on_result: Callable[[Measurement], None]) -> list[Rounds]:
        """Measure what is not recorded, and record each process as soon as it is there."""
        distinct = list(dict.fromkeys(models))
        taken = [self._recorded(model) for model in distinct]
        counts = [len(each) for each in taken]

        def keep(number: int | None, measurement: Measurement) -> None:
            if number is None:
                measurement.save(self._reference_path(measurement))
                return
            measurement.save(self._path(measurement.model_sha256, counts[number]))
            counts[number] += 1
            on_result(measurement)

        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".models-", suffix=TEMPORARY, dir=self._folder) as folder:
            files = [Path(folder) / f"{digest(model)}.{kind_of(self._target).format}" for model in distinct]
            for file, model in zip(files, distinct, strict=True):
                file.write_bytes(model)
            references = self._references()
            batch = Batch(files, self._target, self._settings, taken=taken, references=references, on_process=keep)
            if batch.wanted():
                batch.run(self._connected())
        found = dict(zip(distinct, map(_rounds, batch.results()), strict=True))
        return [found[model] for model in models]

    def _references(self) -> list[float]:
        """Medians of the reference model's recorded processes, in the order of time."""
        recorded = [Measurement.load(path) for path in sorted((self._folder / _REFERENCE).glob(f"{self._key}-*.json"))]
        return [measurement.median_ms for measurement in recorded]

    def _reference_path(self, measurement: Measurement) -> Path:
        """Where the next of the reference's measurements goes."""
        folder = self._folder / _REFERENCE
        folder.mkdir(exist_ok=True)
        return folder / f"{self._key}-{len(list(folder.glob(f'{self._key}-*.json'))):06d}.json"

    def _connected(self) -> Device:
        """The device, connected to at the first call. Raises MeasurementError when the records are of another one."""
        if self._device is None:
            self._device = connect(self._target.profile)
            _check_same_device(self._device.facts(), self._folder, self._target.name)
        return self._device

    def _path(self, model_sha256: str, number: int) -> Path:
        return self._folder / f"{model_sha256[:24]}-{self._key}-{number}.json"


def _rounds(found: Rounds | ModelError | None) -> Rounds:
    if isinstance(found, ModelError):
        raise found
    assert found is not None  # a device that vanished has raised
    return found


def _check_same_device(facts: dict[str, Any], folder: Path, target: str) -> None:
    recorded = next(iter(sorted(folder.glob("*.json"))), None)
    if recorded is None:
        return
    then = Measurement.load(recorded).facts
    for fact in _FINGERPRINT:
        if fact in facts and fact in then and facts[fact] != then[fact]:
            raise MeasurementError(
                f"{target}: is another device now ({fact} is {facts[fact]!r}, its recorded measurements are of"
                f" {then[fact]!r}); give its profile another name"
            )
