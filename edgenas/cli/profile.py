"""``edgenas profile``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from edgenas.cli.common import (
    DeviceOption,
    JsonOption,
    RunOption,
    RuntimeOption,
    ThreadsOption,
    make_target,
    print_json,
)

EXAMPLE = "Example: edgenas profile --run runs/digits --device localhost --minutes 2"


def command(
    run: RunOption,
    device: DeviceOption = "localhost",
    runtime: RuntimeOption = None,
    threads: ThreadsOption = None,
    minutes: Annotated[float, typer.Option(help="Device time to use.")] = 2.0,
    json: JsonOption = False,
) -> None:
    """Measure subnets on a device and build its latency table."""
    from edgenas.pipeline import Run

    target = make_target(device, runtime, threads)
    table = Run(run).profile(target, minutes)
    if json:
        print_json({"run": str(run), "target": target.to_dict(), "certificate": asdict(table.certificate)})
    else:
        print(f"{target.name}: {table.certificate}\nnext: edgenas search --run {run} --device {device}")
