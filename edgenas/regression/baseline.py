"""Baselines: how fast a model file was on its target, measured in several processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from edgenas.devices import Target, connect_device
from edgenas.errors import MeasurementError, ModelError, UsageError
from edgenas.files import parse, read_document, write_document
from edgenas.profilers import FEWEST, Batch, Measurement, MeasurementResult, MeasureSettings
from edgenas.profilers.measure.measurement import upgrade_baseline_from_3

KIND, VERSION = "baseline", 4
ROUNDS = 12
SETTINGS = MeasureSettings()


@dataclass(frozen=True)
class Baseline:
    """What later files are held against: measurements of one model file on one target, each from its own process.

    Raises UsageError for fewer than six measurements, or for measurements of
    different files or targets.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    measurements: tuple[Measurement, ...]

    def __post_init__(self) -> None:
        number = len(self.measurements)
        if number < FEWEST:
            raise UsageError(f"a baseline must have at least {FEWEST} measurements, but got {number}; record it again")
        for what, values in (
            ("model", [each.model_sha256 for each in self.measurements]),
            ("target", [dict(each.target) for each in self.measurements]),
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
        """Whether the numbers are made up, by a fake device."""
        return self.rounds.synthetic

    @cached_property
    def rounds(self) -> MeasurementResult:
        """What the measurements say together: their median and its interval."""
        return MeasurementResult(self.measurements)

    def save(self, path: Path) -> None:
        """Write it as an ``edgenas.baseline`` file."""
        write_document(path, KIND, VERSION, {"measurements": [asdict(each) for each in self.measurements]})

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """Read what ``save`` wrote; raises FormatError when it is damaged or of another kind."""
        return parse(cls, read_document(path, KIND, VERSION, {3: upgrade_baseline_from_3}), str(path))


def record_baseline(model: Path | str, target: Target, settings: MeasureSettings | None = None) -> Baseline:
    """Measure a model file on its target in twelve processes, one after the other: the baseline of later checks.

    ``settings`` hold for each process; how many there are is fixed. Refused
    ones are tried again.
    Raises UsageError for a file that cannot be read, ModelError when the
    runtime refuses it or it kills its process, DeviceError when the device
    cannot be reached, MeasurementError when its conditions allow no trust.
    """
    found = MeasurementResult.of(measure_processes(model, target, settings or SETTINGS, ROUNDS), FEWEST)
    if found.problems:
        raise MeasurementError(f"{model}: no baseline can be recorded on {target.name}: {'; '.join(found.problems)}")
    return Baseline(found.measurements)


def measure_processes(
    model: Path | str, target: Target, settings: MeasureSettings, rounds: int
) -> tuple[Measurement, ...]:
    """Measurements of a model file in so many processes, and of those tried again. Raises what ``measure`` raises."""
    batch = Batch([Path(model)], target, replace(settings, processes=rounds, max_processes=rounds))
    with connect_device(target.profile) as device:
        batch.run(device)
    (found,) = batch.results()
    if isinstance(found, ModelError):
        raise found
    assert isinstance(found, MeasurementResult)
    return found.measurements + found.rejected
