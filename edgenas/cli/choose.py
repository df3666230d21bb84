"""``edgenas choose``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgenas.cli.common import (
    DeviceOption,
    JsonOption,
    PrecisionOption,
    RunOption,
    RuntimeOption,
    ThreadsOption,
    format_peak_bytes,
    print_json,
    print_lines,
    print_table,
)
from edgenas.errors import UsageError
from edgenas.shell import format_command
from edgenas.units import format_bytes, format_ms, format_ms_interval

if TYPE_CHECKING:
    from edgenas.devices import Target

EXAMPLE = "Example: edgenas choose --run runs/digits --device localhost --latency 0.2ms"


def command(
    run: RunOption,
    device: DeviceOption = "localhost",
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    latency: Annotated[str | None, typer.Option(help="Budget of the median latency, for example 15ms.")] = None,
    memory: Annotated[str | None, typer.Option(help="Budget of the process's peak memory, for example 64MB.")] = None,
    max_drop: Annotated[float, typer.Option(help="Points of accuracy that the file may lose.")] = 1.0,
    json: JsonOption = False,
) -> None:
    """Choose a subnet for a budget and measure its file on the device."""
    from edgenas.costs import Budget
    from edgenas.pipeline import Run

    if latency is None and memory is None:
        example = format_command("choose", "--run", run, "--latency", "15ms")
        raise UsageError(f"choose needs a budget, --latency, --memory or both; for example: {example}")
    budget = Budget(latency=latency, memory=memory)
    opened = Run(run)
    target = opened.target(device, runtime, threads, precision)
    choice = opened.choose({target: budget}, max_drop / 100)
    if json:
        print_json({"run": str(run), **choice.to_dict()})
        return
    rows = [
        (
            "predicted",
            f"{choice.predicted.accuracy:.2%}",
            format_ms(choice.predicted.latency_ms),
            "",
            format_bytes(choice.predicted.peak_bytes),
        ),
        (
            "measured",
            f"{choice.measured.accuracy:.2%}",
            format_ms(choice.measured.latency_ms),
            format_ms_interval(choice.measured.interval_ms),
            format_peak_bytes(choice.measured.peak_bytes),
        ),
    ]
    made_up = " SYNTHETIC" if choice.measured.synthetic else ""
    columns = ("", "validation accuracy", "latency", "95% interval", "peak memory")
    print_table(columns, rows, f"{choice.arch} for {budget} on {target.name}{made_up}")
    print_lines(f"validity: {choice.measured.validity}")
    options = f"--device {target.cli_name}{_format_export_options(target)} --out ship"
    print_lines(f"next: {format_command('export', '--run', run, '--arch', choice.arch)} {options}")


def _format_export_options(target: Target) -> str:
    """Return the options of export that name the target's file format, where they are not the defaults."""
    from edgenas.pipeline.export_formats import format_of
    from edgenas.runtimes import ExportFormat

    export_format = format_of(target)
    options = f" --format {export_format.format}" if export_format.format != ExportFormat().format else ""
    named = (
        export_format.precision == ExportFormat().precision
        or export_format.precision != target.profile.default.precision
    )
    return options if named else f"{options} --precision {export_format.precision}"
