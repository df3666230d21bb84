"""``edgenas measure``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenas.cli.common import (
    DeviceOption,
    JsonOption,
    PrecisionOption,
    RuntimeOption,
    ThreadsOption,
    make_target,
    print_json,
)
from edgenas.errors import DeviceError, ModelError

if TYPE_CHECKING:
    from edgenas.cli.measurement_output import Outcome
    from edgenas.devices import Target
    from edgenas.profilers import Measurement

EXAMPLE = "Example: edgenas measure a.onnx b.onnx --device localhost --compare"


def command(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="ONNX or TFLite files.", show_default=False)],
    device: DeviceOption = "localhost",
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    compare: Annotated[bool, typer.Option("--compare", help="Rank them, and say which differ beyond noise.")] = False,
    json: JsonOption = False,
) -> None:
    """Measure model files on a device, with intervals and conditions."""
    from edgenas.cli.measurement_output import document, print_outcomes
    from edgenas.profilers import MeasurementResult

    targets = {model: _target(model, device, runtime, threads, precision) for model in dict.fromkeys(models)}
    # All of them first: a file that cannot be measured is refused before any is.
    parts = [
        _Part([model for model in targets if targets[model] == target], target)
        for target in dict.fromkeys(targets.values())
    ]
    outcomes: dict[Path, Outcome] = dict.fromkeys(targets)
    lost = _measure(parts, outcomes)
    failed = [outcome for outcome in outcomes.values() if isinstance(outcome, ModelError)]
    if any(isinstance(outcome, MeasurementResult | ModelError) for outcome in outcomes.values()) and len(failed) < len(
        outcomes
    ):
        if json:
            print_json(document(outcomes, targets, compare))
        else:
            print_outcomes(outcomes, targets, compare)
    if isinstance(lost, KeyboardInterrupt):
        said = "interrupted; what was measured until then is shown, the same command begins anew"
        print(f"edgenas: {said}", file=sys.stderr)
        raise typer.Exit(130)
    if lost is not None:
        raise lost
    if len(failed) > 1:
        raise ModelError(f"{len(failed)} of {len(outcomes)} models failed; the first: {failed[0]}")
    if failed:
        raise failed[0]


def _target(model: Path, device: str, runtime: str | None, threads: int | None, precision: str | None) -> Target:
    """The target for a file: without ``--runtime`` the profile's default, or else its first that runs such files."""
    from edgenas.profilers.measure.protocol import ENDINGS

    target = make_target(device, runtime, threads, precision)
    if runtime is None and model.suffix not in ENDINGS.get(target.runtime, ()):
        fitting = [name for name in target.profile.runtimes if model.suffix in ENDINGS.get(name, ())]
        if fitting:
            return make_target(device, fitting[0], threads, precision)
    return target


class _Part:
    """The models of one target, which are measured together. Raises UsageError for one that cannot be."""

    def __init__(self, models: Sequence[Path], target: Target) -> None:
        from edgenas.profilers import Batch, MeasureSettings

        settings = MeasureSettings()
        self._models, self._target = models, target
        self._total, self._done = len(models) * settings.processes, 0
        self._batch = Batch(models, target, settings, on_process=self._show)

    def measure(self) -> None:
        from edgenas.devices import connect_device
        from edgenas.pipeline.progress import Progress, Silent

        progress = Progress() if len(self._models) > 1 else Silent()
        with progress.step("measure", self._total) as self._bar, connect_device(self._target.profile) as live:
            self._batch.run(live)

    def results(self) -> dict[Path, Outcome]:
        return dict(zip(self._models, self._batch.results(), strict=True))

    def _show(self, number: int | None, measurement: Measurement) -> None:
        if number is not None:
            self._done += 1
            self._bar(min(self._done, self._total), f"{self._models[number]}  {measurement.median_ms:.3f} ms")


def _measure(parts: Sequence[_Part], outcomes: dict[Path, Outcome]) -> DeviceError | KeyboardInterrupt | None:
    """Fill in what is found of each model; returns what put an early end to it, which is the outcome of the others."""
    for part in parts:
        try:
            part.measure()
        except DeviceError as error:
            outcomes.update(part.results())
            outcomes.update({model: error for model, outcome in outcomes.items() if outcome is None})
            return error
        except KeyboardInterrupt as error:
            outcomes.update(part.results())
            return error
        outcomes.update(part.results())
    return None
