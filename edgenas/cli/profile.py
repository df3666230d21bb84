"""``edgenas profile``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenas.cli.common import (
    DeviceOption,
    JsonOption,
    PrecisionOption,
    RunOption,
    RuntimeOption,
    ThreadsOption,
    print_json,
    print_lines,
)
from edgenas.errors import ExitCode, UsageError
from edgenas.shell import format_command
from edgenas.units import parse_percent

if TYPE_CHECKING:
    from edgenas.devices import Target
    from edgenas.pipeline import Run

EXAMPLE = "Example: edgenas profile --run runs/digits --device localhost --minutes 2"
_MINUTES = 10.0


def command(
    run: RunOption,
    device: DeviceOption = "localhost",
    runtime: RuntimeOption = None,
    threads: ThreadsOption = None,
    precision: PrecisionOption = None,
    minutes: Annotated[
        float | None, typer.Option(help="Device time to use; more of it extends a table.", show_default=f"{_MINUTES:g}")
    ] = None,
    target_error: Annotated[
        str | None, typer.Option(help="Stop when held-out subnets are predicted to this with 95% confidence, e.g. 3%.")
    ] = None,
    source_tables: Annotated[
        list[str] | None,
        typer.Option("--from", help="Start from another target's table: its name in this run, or its JSON file."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the table with 20 subnets that are measured now.")
    ] = False,
    explain: Annotated[
        str | None, typer.Option(metavar="ARCH", help="Show the predicted latency of one architecture, by parts.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="With --explain: draw it as a PNG, too.")] = None,
    json: JsonOption = False,
) -> None:
    """Measure subnets on a device and build its latency table, check it, or show the latency of one subnet by parts."""
    from edgenas.pipeline import Run

    building = {"--minutes": minutes, "--target-error": target_error, "--from": source_tables}
    _check_options({name for name, value in building.items() if value not in (None, [])}, check, explain, picture)
    opened = Run(run)
    target = opened.target(device, runtime, threads, precision)
    if check:
        _measure_and_print_check(opened, target, json)
    elif explain is not None:
        _print_and_draw_explanation(opened, target, explain, picture, json)
    else:
        error = None if target_error is None else parse_percent(target_error, "--target-error")
        table = opened.profile(target, _MINUTES if minutes is None else minutes, error, source_tables or ())
        if json:
            holdout = table.holdout and asdict(table.holdout)
            print_json(
                {
                    "run": str(run),
                    "target": target.to_dict(),
                    "holdout": holdout,
                    "transfer_weight": table.transfer_weight,
                }
            )
        else:
            print_lines(target.name, *str(table.holdout).split("\n"))
            if table.transfer_weight is not None:
                print_lines(f"transfer weight of the source tables: {table.transfer_weight:.0%}")
            print_lines(f"next: {format_command('search', '--run', run)} --device {target.cli_name}")


def _check_options(building: set[str], check: bool, explain: str | None, picture: Path | None) -> None:
    """Raise UsageError for options that do not go together."""
    asked = [name for name, given in (("--check", check), ("--explain", explain is not None)) if given]
    if len(asked) == 2:
        raise UsageError("--check and --explain exclude each other; give one of them")
    if asked and building:
        raise UsageError(
            f"{asked[0]} is about an existing table, {', '.join(sorted(building))} builds one; leave one out"
        )
    if picture is not None and explain is None:
        raise UsageError("--picture draws what --explain ARCH shows; give both")


def _measure_and_print_check(run: Run, target: Target, json: bool) -> None:
    """Print a check of the table; exit with 1 where it disagrees."""
    from edgenas.cli.table_output import print_check

    found = run.check_table(target)
    if json:
        print_json({"run": str(run.folder.root), **found.to_dict()})
    else:
        print_check(found)
    if not found.agrees:
        raise typer.Exit(ExitCode.FAILED)


def _print_and_draw_explanation(run: Run, target: Target, text: str, picture: Path | None, json: bool) -> None:
    from edgenas.cli.table_output import print_explanation, save_explanation_plot

    explanation = run.explain(target, run.architecture(text))
    if picture is not None:
        save_explanation_plot(explanation, picture)
    if json:
        print_json({"run": str(run.folder.root), **explanation.to_dict()})
    else:
        print_explanation(explanation)
