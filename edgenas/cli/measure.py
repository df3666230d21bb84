"""``edgenas measure``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenas.cli.common import DeviceOption, JsonOption, RuntimeOption, ThreadsOption, make_target, print_json
from edgenas.errors import DeviceError, ModelError

if TYPE_CHECKING:
    from edgenas.cli.measured import Outcome
    from edgenas.devices import Target

EXAMPLE = "Example: edgenas measure a.onnx b.onnx --device localhost --compare"


def command(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="ONNX or TFLite files.", show_default=False)],
    device: DeviceOption = "localhost",
    runtime: RuntimeOption = None,
    threads: ThreadsOption = None,
    compare: Annotated[bool, typer.Option("--compare", help="Rank them, and say which differ beyond noise.")] = False,
    json: JsonOption = False,
) -> None:
    """Measure model files on a device, with intervals and conditions."""
    from edgenas.cli.measured import document, print_outcomes

    targets = {model: _target(model, device, runtime, threads) for model in dict.fromkeys(models)}
    outcomes: dict[Path, Outcome] = dict.fromkeys(targets)
    lost: DeviceError | None = None
    try:
        for target in dict.fromkeys(targets.values()):
            _measure([model for model in targets if targets[model] == target], target, outcomes)
    except DeviceError as error:
        lost = error
    failed = [outcome for outcome in outcomes.values() if isinstance(outcome, ModelError)]
    if any(outcomes.values()) and len(failed) < len(outcomes):
        if json:
            print_json(document(outcomes, targets, compare))
        else:
            print_outcomes(outcomes, targets, compare)
    if lost is not None:
        raise lost
    if len(failed) > 1:
        raise ModelError(f"{len(failed)} of {len(outcomes)} models failed; the first: {failed[0]}")
    if failed:
        raise failed[0]


def _target(model: Path, device: str, runtime: str | None, threads: int | None) -> Target:
    """The target for a file: without ``--runtime`` the profile's default, or else its first that runs such files."""
    from edgenas.profilers.request import ENDINGS

    target = make_target(device, runtime, threads)
    if runtime is None and model.suffix not in ENDINGS.get(target.runtime, ()):
        fitting = [name for name in target.profile.runtimes if model.suffix in ENDINGS.get(name, ())]
        if fitting:
            return make_target(device, fitting[0], threads)
    return target


def _measure(models: Sequence[Path], target: Target, outcomes: dict[Path, Outcome]) -> None:
    """Fill in what is found of each model, also when the device vanishes in between."""
    from edgenas.devices import connect
    from edgenas.pipeline.progress import Progress, Silent
    from edgenas.profilers import Batch, Measurement, MeasureSettings

    settings = MeasureSettings()
    total, done = len(models) * settings.processes, 0
    progress = Progress() if len(models) > 1 else Silent()
    with progress.step("measure", total) as bar:

        def show(number: int | None, measurement: Measurement) -> None:
            nonlocal done
            if number is not None:
                done += 1
                bar(min(done, total), f"{models[number]}  {measurement.median_ms:.3f} ms")

        batch = Batch(models, target, settings, on_process=show)
        try:
            with connect(target.profile) as live:
                batch.run(live)
        finally:
            outcomes.update(zip(models, batch.results(), strict=True))
