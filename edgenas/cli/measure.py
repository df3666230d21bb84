"""``edgenas measure``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenas.cli.common import (
    DeviceOption,
    InputsOption,
    JsonOption,
    PrecisionOption,
    RuntimeOption,
    ShapeOption,
    ThreadsOption,
    print_json,
)
from edgenas.errors import ExitCode, InterruptedByUserError, ModelError, UnusableModelsError

if TYPE_CHECKING:
    from edgenas.devices import DeviceProfile
    from edgenas.profilers import MeasuredModels, Measurement, ModelInputs

EXAMPLE = "Example: edgenas measure a.onnx b.onnx --device localhost --compare"


class _StoppedError(Exception):
    """Measuring ended early."""


def command(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="ONNX or TFLite files.", show_default=False)],
    device: DeviceOption = "localhost",
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    shapes: ShapeOption = None,
    inputs: InputsOption = None,
    compare: Annotated[bool, typer.Option("--compare", help="Rank them, and say which differ beyond noise.")] = False,
    json: JsonOption = False,
) -> None:
    """Measure model files on a device, with ranges and conditions.

    Exit code 5 where every measurement is rejected.
    """
    from edgenas.cli.measurement_output import build_document, print_outcomes
    from edgenas.devices import load_profile
    from edgenas.profilers import ModelInputs

    given = ModelInputs.parse(shapes or [], inputs)
    try:
        measured = _measure_with_progress(models, load_profile(device), runtime, precision, threads, given)
    except UnusableModelsError as error:
        if json:
            print_json({"models": [], "errors": list(error.problems)})
        raise
    number = len(measured.outcomes)
    if json:
        print_json(build_document(measured.outcomes, measured.targets, compare))
    elif measured.results or (measured.errors and number > 1):
        print_outcomes(measured.outcomes, measured.targets, compare)
    if isinstance(measured.stopped_by, KeyboardInterrupt):
        raise InterruptedByUserError("interrupted; what was measured until then is shown, the same command begins anew")
    if measured.errors and number > 1 and measured.stopped_by is None:
        raise ModelError(f"{len(measured.errors)} of {number} models failed; see above")
    measured.raise_for_errors()
    if all(result.rejection_reasons for result in measured.results.values()):
        raise typer.Exit(ExitCode.NOT_MEASURABLE)


def _measure_with_progress(
    models: list[Path],
    profile: DeviceProfile,
    runtime: str | None,
    precision: str | None,
    threads: int | None,
    inputs: ModelInputs,
) -> MeasuredModels:
    """Measure the files with progress, also of a single one: it may be slow."""
    from edgenas.pipeline.progress import Bar, Progress
    from edgenas.profilers import measure_models

    total, done = 0, 0
    bar: Bar

    def start_bar(processes: int) -> None:
        nonlocal total, bar
        total, bar = processes, stack.enter_context(Progress().step("measure", processes))
        bar(0)

    def advance_bar(model: Path, measurement: Measurement) -> None:
        nonlocal done
        done += 1
        bar(min(done, total), f"{model}  {measurement.median_ms:.3f} ms")

    with contextlib.suppress(_StoppedError), contextlib.ExitStack() as stack:
        measured = measure_models(
            models,
            profile,
            runtime=runtime,
            precision=precision,
            threads=threads,
            inputs=inputs,
            on_start=start_bar,
            on_process=advance_bar,
        )
        if measured.stopped_by is not None or not measured.results:
            raise _StoppedError  # through the progress, or else it would say that measuring is done
    return measured
