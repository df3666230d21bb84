"""``edgenas choose``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenas.cli.common import (
    DevicesOption,
    JsonOption,
    RunOption,
    print_json,
    read_devices,
)
from edgenas.errors import UsageError
from edgenas.shell import format_command

if TYPE_CHECKING:
    from edgenas.costs import Budget

EXAMPLE = "Example: edgenas choose --run runs/digits --device localhost --latency 0.2ms"
_MAX_DROP = 1.0


def command(
    run: RunOption,
    device: DevicesOption = None,
    runtime: Annotated[str | None, typer.Option(help="Only this runtime.", show_default="all with a table")] = None,
    precision: Annotated[str | None, typer.Option(help="Only this precision.", show_default="all with a table")] = None,
    threads: Annotated[int | None, typer.Option(help="Only so many threads.", show_default="all with a table")] = None,
    latency: Annotated[
        list[str] | None,
        typer.Option(help="Budget of the median latency, for example 15ms: one, or one a device in their order."),
    ] = None,
    memory: Annotated[
        list[str] | None,
        typer.Option(help="Budget of the process's peak memory, for example 64MB: one, or one a device."),
    ] = None,
    percentile: Annotated[
        int | None,
        typer.Option(
            help="The percentile of the latencies that keeps the budget, such as 90.", show_default="50, the median"
        ),
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Points of accuracy that the file may lose.", show_default="1")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Prove the choice on the device, or only predict it.")
    ] = True,
    json: JsonOption = False,
) -> None:
    """Choose a subnet, and how it is deployed, for the budgets of one or several devices."""
    from edgenas.cli.choice_output import print_choice
    from edgenas.pipeline import Run

    if not measure and max_drop is not None:
        raise UsageError("--max-drop is of files, which --no-measure does not make; leave out one of the two")
    devices = read_devices(device)
    budgets = _read_budgets(run, devices, latency or [], memory or [], percentile)
    opened = Run(run)
    by_target = {
        target: budget
        for name, budget in zip(devices, budgets, strict=True)
        for target in opened.targets(name, runtime, threads, precision)
    }
    choice = opened.choose(by_target, (_MAX_DROP if max_drop is None else max_drop) / 100, measure=measure)
    if json:
        print_json({"run": str(run), "predicted_only": not choice.is_measured, **choice.to_dict()})
    else:
        print_choice(opened, choice, {target.name: target for target in by_target})


def _read_budgets(
    run: Path, devices: Sequence[str], latencies: Sequence[str], memories: Sequence[str], percentile: int | None
) -> list[Budget]:
    """Return the budget of each device; UsageError where their numbers do not match."""
    from edgenas.costs import MEDIAN, Budget

    if not latencies and not memories:
        example = format_command("choose", "--run", run, "--latency", "15ms")
        raise UsageError(f"choose needs a budget, --latency, --memory or both; for example: {example}")
    spread = [_spread("--latency", latencies, devices), _spread("--memory", memories, devices)]
    limited = MEDIAN if percentile is None else percentile
    return [Budget(latency, memory, limited) for latency, memory in zip(*spread, strict=True)]


def _spread(option: str, values: Sequence[str], devices: Sequence[str]) -> list[str | None]:
    """Return one value for each device."""
    if len(values) not in (0, 1, len(devices)):
        wanted = f"once for all, or {len(devices)} times in their order" if len(devices) > 1 else "once"
        raise UsageError(
            f"{option} must be given {wanted}, for {', '.join(devices)}, but got {len(values)}: {', '.join(values)}"
        )
    return list(values) if len(values) == len(devices) else [values[0] if values else None] * len(devices)
