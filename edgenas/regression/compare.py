"""Two models on one device, or one model on two: what each takes, and which operators make the difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgenas.devices import DeviceProfile, Target
from edgenas.errors import UsageError
from edgenas.profilers import (
    MeasuredModels,
    MeasurementResult,
    ModelInputs,
    compare_results,
    measure_models,
    profile_operators,
)
from edgenas.profilers.measure.operators import PROCESSES
from edgenas.regression.blame import OperatorComparison, compare_operators

OnStart = Callable[[str, int], None]


@dataclass(frozen=True)
class ComparedModel:
    """A model on a target, as it was measured: without a profiler."""

    model: Path
    target: Target
    result: MeasurementResult

    def to_dict(self) -> dict[str, Any]:
        """Return model, target and measurements as plain data."""
        return {"model": str(self.model), "target": self.target.name, **self.result.to_dict()}


@dataclass(frozen=True)
class ModelComparison:
    """Two models on one device, or one model on two.

    Attributes:
        before: the first.
        after: the second.
        side_by_side: one target ran both, a process of each in turn; else they were measured one after the other.
        operators: their operators.
    """

    before: ComparedModel
    after: ComparedModel
    side_by_side: bool
    operators: OperatorComparison

    @property
    def ratio(self) -> tuple[float, float, float] | None:
        """How many times as long the second takes, with the ends of the 95% interval; None where one is rejected."""
        if self.before.result.rejection_reasons or self.after.result.rejection_reasons:
            return None
        return compare_results(self.after.result, self.before.result)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "side_by_side": self.side_by_side,
            "ratio": None if self.ratio is None else self.ratio[0],
            "ratio_interval_95": None if self.ratio is None else self.ratio[1:],
            "operators": self.operators.to_dict(),
        }

    def __repr__(self) -> str:
        return f"ModelComparison({self.before.result.summary}; {self.after.result.summary})"


def compare_models(
    models: Sequence[Path | str],
    devices: Sequence[DeviceProfile],
    inputs: ModelInputs | None = None,
    *,
    on_start: OnStart = lambda what, processes: None,
    on_process: Callable[[], None] = lambda: None,
) -> ModelComparison:
    """Measure two models on one device, or one model on two, and compare their operators.

    Two environments of Python on one board are two devices: profiles that differ in ``python``.

    Args:
        models: one or two ONNX or TFLite files.
        devices: two device profiles for one file, one for two.
        inputs: what the models are given; by default what can be made up.
        on_start: called with what begins, and of how many processes it is.
        on_process: called after each process.

    Raises:
        UsageError: for another number of models and devices, the same one twice, or a file that cannot be measured.
        ModelError: when a runtime refuses a file or does not list its operators.
        DeviceError: when a device cannot be reached or vanishes.
    """
    paths = [Path(model) for model in models]
    if (len(paths), len(devices)) not in ((2, 1), (1, 2)):
        raise UsageError(
            f"give two models and one device, or one model and two devices, but got {len(paths)} and {len(devices)}"
        )
    if len(set(paths)) < len(paths) or (len(devices) == 2 and devices[0] == devices[1]):
        twice = paths[0] if len(paths) == 2 else devices[0].name
        raise UsageError(f"{twice}: is given twice; two that differ can be compared")
    measured = [
        measure_models(
            paths,
            device,
            inputs=inputs,
            on_start=lambda processes: on_start("measure", processes),
            on_process=lambda model, measurement: on_process(),
        )
        for device in devices
    ]
    sides = [side for each in measured for side in _list_sides(each)]
    before, after = sides
    side_by_side = len(devices) == 1 and _conditions(before) == _conditions(after)
    on_start("operators", 2 * PROCESSES)
    if side_by_side:
        old, new = profile_operators([before.model, after.model], before.target, inputs, on_process=on_process)
        new = replace(new, target=after.target.to_dict())
    else:
        (old,), (new,) = (profile_operators([side.model], side.target, inputs, on_process=on_process) for side in sides)
    return ModelComparison(before, after, side_by_side, compare_operators(old, new))


def _list_sides(measured: MeasuredModels) -> list[ComparedModel]:
    measured.raise_for_errors()
    return [ComparedModel(path, measured.targets[path], result) for path, result in measured.results.items()]


def _conditions(side: ComparedModel) -> dict[str, Any]:
    """Return all of a target but its precision: files of any precision are measured together."""
    return {**side.target.to_dict(), "precision": None}
