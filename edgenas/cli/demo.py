"""``edgenas demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgenas.cli.common import (
    DeviceOption,
    JsonOption,
    RunOption,
    format_peak_bytes,
    load_target,
    print_json,
    print_lines,
    print_table,
)
from edgenas.shell import format_command, format_python, quote
from edgenas.units import format_bytes, format_latency_budget, format_ms, format_ms_interval

if TYPE_CHECKING:
    from edgenas.pipeline.demo import DemoResult

EXAMPLE = "Example: edgenas demo --run runs/demo"


def command(run: RunOption = Path("runs/demo"), device: DeviceOption = "localhost", json: JsonOption = False) -> None:
    """Run the full pipeline on real digits, in about four minutes."""
    from edgenas.pipeline.demo import run_demo
    from edgenas.report import Marker, write_front_plot

    result = run_demo(run, load_target(device))
    picture = result.run.folder.picture(result.target.name)
    markers = [Marker(row.name, row.measured_ms, row.interval_ms, row.test_accuracy) for row in result.subnets]
    write_front_plot(
        result.front,
        picture,
        markers=markers,
        budget_ms=result.deployment.budget.latency_ms,
        synthetic=result.table.synthetic,
    )
    if json:
        print_json({**result.to_dict(), "picture": str(picture)})
    else:
        _print_result(result, picture)


def _print_result(result: DemoResult, picture: Path) -> None:
    columns = ("subnet", "test accuracy", "predicted", "measured", "95% interval", "peak memory", "activations", "id")
    rows = [
        (
            row.name,
            f"{row.test_accuracy:.2%}",
            format_ms(row.predicted_ms),
            format_ms(row.measured_ms),
            format_ms_interval(row.interval_ms),
            format_peak_bytes(row.peak_bytes),
            format_bytes(row.activation_bytes),
            row.architecture,
        )
        for row in result.subnets
    ]
    print_lines("")
    made_up = " SYNTHETIC" if result.table.synthetic else ""
    print_table(columns, rows, f"Budget: {result.deployment.budget} on {result.target.name}{made_up}")
    if result.deployment.measured is not None:
        print_lines("", f"validity: {result.deployment.measured.validity}")
    for row in result.subnets:
        print_lines(f"{row.name:<8}  {row.model}")
    if result.int8 is not None:
        print_lines(f"int8      {result.int8 / 'model.tflite'}")
    print_lines(f"front     {picture}")
    root, chosen = result.run.folder.root, next(row for row in result.subnets if row.name == "chosen")
    device = f"--device {result.target.cli_name}"
    lower = (result.front.latency_ms[0] + result.deployment.budget.latency_ms) / 2
    print_lines("", "Next:")
    print_lines(f"  {format_python()} {quote(Path(chosen.model).parent / 'run.py')}")
    print_lines(f"  {format_command('measure', chosen.model)} {device}")
    print_lines(f"  {format_command('choose', '--run', root)} {device} --latency {format_latency_budget(lower)}")
    print_lines(f"  {format_command('export', '--run', root, '--arch', chosen.architecture, '--out', 'ship')}")
