"""A run's measurements: taken once, stored at once, never taken again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from edgenas.devices import Device, Target, connect
from edgenas.errors import MeasurementError
from edgenas.files import TEMPORARY, canonical_json, digest
from edgenas.profilers import FEWEST, Measurement, MeasureSettings, Rounds, measure_many, sift

# How chosen and exported files are measured, in each of six processes.
SETTINGS = MeasureSettings(max_seconds=1.0, max_runs=500)
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
        """The measurement of each model, in order. Raises ModelError for a model that the runtime refuses."""
        missing = {digest(model): model for model in models if not self._path(digest(model), 0).exists()}
        if missing:
            self._record(list(missing.values()), [self._path(name, 0) for name in missing], on_result)
        return [Measurement.load(self._path(digest(model), 0)) for model in models]

    def prove(self, model: bytes) -> Rounds:
        """A model measured in six processes; refused ones do not count, and up to twelve more are tried.

        Raises MeasurementError with the remedy when the device's conditions
        allow no trust in six of them.
        """
        taken = self._recorded(model)
        for wanted in (FEWEST - len(sift(taken)[0]), FEWEST, FEWEST):
            if len(sift(taken)[0]) >= FEWEST:
                break
            paths = [self._path(digest(model), len(taken) + number) for number in range(wanted)]
            self._record([model] * wanted, paths, lambda measurement: None)
            taken = self._recorded(model)
        usable, problems = sift(taken)
        if problems:
            raise MeasurementError(
                f"{self._target.name}: too few measurements of the file can be trusted: {problems[-1]}"
            )
        return Rounds(usable[:FEWEST])

    def recorded(self, model: bytes) -> Rounds | None:
        """The first six measurements of a model that were not refused, if they have been taken."""
        usable = sift(self._recorded(model))[0]
        return Rounds(usable[:FEWEST]) if len(usable) >= FEWEST else None

    def _recorded(self, model: bytes) -> list[Measurement]:
        name = digest(model)
        found: list[Measurement] = []
        while (path := self._path(name, len(found))).exists():
            found.append(Measurement.load(path))
        return found

    def _record(self, models: Sequence[bytes], paths: Sequence[Path], on_result: Callable[[Measurement], None]) -> None:
        """Measure each model and store it under its path as soon as it is there."""
        device = self._connected()
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".models-", suffix=TEMPORARY, dir=self._folder) as folder:
            files = [Path(folder) / f"{digest(model)}.onnx" for model in models]
            for file, model in zip(files, models, strict=True):
                file.write_bytes(model)
            answers = measure_many(files, self._target, device=device, settings=self._settings)
            for path, outcome in zip(paths, answers, strict=True):
                if not isinstance(outcome, Measurement):
                    raise outcome
                outcome.save(path)
                on_result(outcome)

    def _connected(self) -> Device:
        """The device, connected to at the first call. Raises MeasurementError when the records are of another one."""
        if self._device is None:
            self._device = connect(self._target.profile)
            _check_same_device(self._device.facts(), self._folder, self._target.name)
        return self._device

    def _path(self, model_sha256: str, number: int) -> Path:
        return self._folder / f"{model_sha256[:24]}-{self._key}-{number}.json"


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
