"""A run's measurements: taken once, stored at once, never taken again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from edgenas.devices import Device, Target, connect
from edgenas.files import canonical_json, digest
from edgenas.profilers import Measurement, MeasureSettings, measure_many

# How chosen and exported files are measured: to 2% at 95%.
SETTINGS = MeasureSettings()


class Measurer:
    """Measures model files on a target, through a folder of recorded measurements.

    The device is connected to only when something is not recorded yet. A
    context manager; leaving it closes the device.
    """

    def __init__(self, folder: Path, target: Target, settings: MeasureSettings) -> None:
        self._folder, self._target, self._settings = folder, target, settings
        self._device: Device | None = None

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
        missing = {digest(model): model for model in models if not self._path(digest(model)).exists()}
        if missing:
            self._record(missing, on_result)
        return [Measurement.load(self._path(digest(model))) for model in models]

    def recorded(self, model: bytes) -> Measurement | None:
        """The measurement of a model if it has been taken."""
        path = self._path(digest(model))
        return Measurement.load(path) if path.exists() else None

    def _record(self, models: dict[str, bytes], on_result: Callable[[Measurement], None]) -> None:
        if self._device is None:
            self._device = connect(self._target.profile)
        with tempfile.TemporaryDirectory(prefix="edgenas-") as folder:
            paths = [Path(folder) / f"{name}.onnx" for name in models]
            for path, model in zip(paths, models.values(), strict=True):
                path.write_bytes(model)
            for outcome in measure_many(paths, self._target, device=self._device, settings=self._settings):
                if not isinstance(outcome, Measurement):
                    raise outcome
                outcome.save(self._path(outcome.model_sha256))
                on_result(outcome)

    def _path(self, model_sha256: str) -> Path:
        settings = digest(canonical_json(self._settings.to_dict()))
        return self._folder / f"{model_sha256[:24]}-{settings[:8]}.json"
