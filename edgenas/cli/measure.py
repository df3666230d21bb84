"""``edgenas measure``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenas.cli.common import (
    DeviceOption,
    JsonOption,
    PrecisionOption,
    RuntimeOption,
    ThreadsOption,
    print_json,
)
from edgenas.errors import InterruptedByUserError

if TYPE_CHECKING:
    from edgenas.devices import DeviceProfile
    from edgenas.profilers import MeasuredModels, Measurement

EXAMPLE = "Example: edgenas measure a.onnx b.onnx --device localhost --compare"


class _StoppedError(Exception):
    """Measuring ended early."""


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
    from edgenas.cli.measurement_output import build_document, print_outcomes
    from edgenas.devices import load_profile

    measured = _measure_with_progress(models, load_profile(device), runtime, precision, threads)
    if measured.results or 0 < len(measured.errors) < len(measured.outcomes):
        if json:
            print_json(build_document(measured.outcomes, measured.targets, compare))
        else:
            print_outcomes(measured.outcomes, measured.targets, compare)
    if isinstance(measured.stopped_by, KeyboardInterrupt):
        raise InterruptedByUserError("interrupted; what was measured until then is shown, the same command begins anew")
    measured.raise_for_errors()


def _measure_with_progress(
    models: list[Path], profile: DeviceProfile, runtime: str | None, precision: str | None, threads: int | None
) -> MeasuredModels:
    """Measure the files, with progress where there are several."""
    from edgenas.pipeline.progress import Bar, Progress, Silent
    from edgenas.profilers import measure_models

    total, done = 0, 0
    bar: Bar

    def start_bar(processes: int) -> None:
        nonlocal total, bar
        progress = Progress() if len(set(models)) > 1 else Silent()
        total, bar = processes, stack.enter_context(progress.step("measure", processes))

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
            on_start=start_bar,
            on_process=advance_bar,
        )
        if measured.stopped_by is not None:
            raise _StoppedError  # through the progress, or else it would say that measuring is done
    return measured
