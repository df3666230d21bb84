"""Baselines: the latency of a model file on its target, measured in several processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from edgenas.devices import Target
from edgenas.errors import MeasurementError, UsageError
from edgenas.files import Schema, parse_dataclass
from edgenas.profilers import MIN_PROCESSES, Measurement, MeasurementResult, MeasureSettings, ModelInputs, measure_model
from edgenas.profilers.measure.measurement import upgrade_baseline_from_3

_SCHEMA = Schema("baseline", 5, {3: upgrade_baseline_from_3, 4: dict})
PROCESSES = 12
SETTINGS = MeasureSettings()


@dataclass(frozen=True)
class Baseline:
    """Measurements of one model file on one target, each from its own process, to compare later files with.

    Raises:
        UsageError: for fewer than six measurements, or measurements of different files or targets.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    measurements: tuple[Measurement, ...]

    def __post_init__(self) -> None:
        number = len(self.measurements)
        if number < MIN_PROCESSES:
            raise UsageError(
                f"a baseline must have at least {MIN_PROCESSES} measurements, but got {number}; record it again"
            )
        for what, values in (
            ("model", [measurement.model_sha256 for measurement in self.measurements]),
            ("target", [dict(measurement.target) for measurement in self.measurements]),
        ):
            other = next((value for value in values if value != values[0]), None)
            if other is not None:
                raise UsageError(f"a baseline must be of one {what}, but got {values[0]} and {other}; record it again")

    @property
    def target(self) -> Mapping[str, Any]:
        """Device, runtime, providers, precision and threads that it was measured on."""
        return self.measurements[0].target

    @property
    def synthetic(self) -> bool:
        """True where the numbers are made up, by a fake device."""
        return self.result.synthetic

    @cached_property
    def result(self) -> MeasurementResult:
        """The result of all measurements: median, interval and validity."""
        return MeasurementResult(self.measurements)

    def __repr__(self) -> str:
        return f"Baseline({self.result.summary})"

    def save(self, path: Path | str) -> None:
        """Write an ``edgenas.baseline`` file."""
        _SCHEMA.write(Path(path), {"measurements": [measurement.to_dict() for measurement in self.measurements]})

    @classmethod
    def load(cls, path: Path | str) -> Baseline:
        """Read what ``save`` wrote; raise FormatError when the file is damaged or of another kind."""
        return parse_dataclass(cls, _SCHEMA.read(Path(path)), str(path))


def record_baseline(
    model: Path | str, target: Target, settings: MeasureSettings | None = None, inputs: ModelInputs | None = None
) -> Baseline:
    """Measure a model file on its target in twelve processes, as the baseline of later checks.

    Args:
        model: an ONNX or TFLite file.
        target: the device and how the model is run there.
        settings: how long the model is run in each process; the number of processes is fixed.
        inputs: what the model is given; by default what can be made up. Checks must give the same.

    Returns:
        The baseline, without rejected processes; those are repeated.

    Raises:
        UsageError: for a file that cannot be read.
        ModelError: when the runtime refuses the file, or the file kills its process.
        DeviceError: when the device cannot be reached.
        MeasurementError: when the device's conditions reject too many processes.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from edgenas import Target, load_profile, record_baseline
        >>> folder = Path(tempfile.mkdtemp())
        >>> fake = "{name: toy, connection: {kind: fake}, runtimes: {onnxruntime: {}}, default: {runtime: onnxruntime}}"
        >>> _ = (folder / "toy.yaml").write_text(fake)
        >>> _ = (folder / "model.onnx").write_bytes(bytes(320_000))
        >>> baseline = record_baseline(folder / "model.onnx", Target(load_profile(folder / "toy.yaml")))
        >>> baseline
        Baseline(0.321 ms, 95% interval 0.321 to 0.321 ms, 12 processes, synthetic, unverified)
        >>> baseline.save(folder / "baseline.json")
    """
    taken = measure_processes(model, target, settings or SETTINGS, PROCESSES, inputs)
    result = MeasurementResult.from_measurements(taken, MIN_PROCESSES)
    if result.rejection_reasons:
        raise MeasurementError(
            f"{model}: no baseline can be recorded on {target.name}: {'; '.join(result.rejection_reasons)}"
        )
    return Baseline(result.measurements)


def measure_processes(
    model: Path | str, target: Target, settings: MeasureSettings, processes: int, inputs: ModelInputs | None
) -> tuple[Measurement, ...]:
    """Measure a model file in this many processes; return all, rejected ones too; raise as ``measure_model`` does."""
    result = measure_model(model, target, replace(settings, processes=processes, max_processes=processes), inputs)
    return result.measurements + result.rejected
