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
)
from edgenas.errors import UsageError
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
        str | None, typer.Option(help="Stop when unseen subnets are surely predicted to this, for example 3%.")
    ] = None,
    others: Annotated[
        list[str] | None,
        typer.Option("--from", help="Begin with another target's table: its name in this run, or its JSON file."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Hold the table against 20 subnets measured now.")] = False,
    explain: Annotated[
        str | None, typer.Option(metavar="ARCH", help="Show where the time of one architecture goes.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="With --explain: draw it as a PNG, too.")] = None,
    json: JsonOption = False,
) -> None:
    """Measure subnets on a device and build its latency table, check it, or ask it where time goes."""
    from edgenas.pipeline import Run

    building = {"--minutes": minutes, "--target-error": target_error, "--from": others}
    _check_options({name for name, value in building.items() if value not in (None, [])}, check, explain, picture)
    opened = Run(run)
    target = opened.target(device, runtime, threads, precision)
    if check:
        _check(opened, target, json)
    elif explain is not None:
        _explain(opened, target, explain, picture, json)
    else:
        error = None if target_error is None else parse_percent(target_error, "--target-error")
        table = opened.profile(target, _MINUTES if minutes is None else minutes, error, others or ())
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
            print(f"{target.name}\n{table.holdout}")
            if table.transfer_weight is not None:
                print(
                    f"weight of the other targets' tables: {table.transfer_weight:.0%}, by how well they predict these subnets"
                )
            print(f"next: edgenas search --run {run} --device {target.cli_name}")


def _check_options(building: set[str], check: bool, explain: str | None, picture: Path | None) -> None:
    """Raises UsageError for options that do not go together."""
    asked = [name for name, given in (("--check", check), ("--explain", explain is not None)) if given]
    if len(asked) == 2:
        raise UsageError("--check and --explain exclude each other; give one of them")
    if asked and building:
        raise UsageError(f"{asked[0]} asks an existing table, {', '.join(sorted(building))} builds one; leave one out")
    if picture is not None and explain is None:
        raise UsageError("--picture draws what --explain ARCH shows; give both")


def _check(run: Run, target: Target, json: bool) -> None:
    """Print how the table does on a fresh measurement; exits with 1 where it does worse than its certificate."""
    from edgenas.cli.table_output import print_check

    found = run.check_table(target)
    if json:
        print_json({"run": str(run.layout.root), **found.to_dict()})
    else:
        print_check(found)
    if not found.agrees:
        raise typer.Exit(1)


def _explain(run: Run, target: Target, text: str, picture: Path | None, json: bool) -> None:
    from edgenas.cli.table_output import draw_explanation, print_explanation
    from edgenas.pipeline.architecture_names import resolve_architecture

    explanation = run.explain(target, resolve_architecture(run.space, text))
    if picture is not None:
        draw_explanation(explanation, picture)
    if json:
        print_json({"run": str(run.layout.root), **explanation.to_dict()})
    else:
        print_explanation(explanation)
