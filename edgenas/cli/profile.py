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

    opened = Run(run)
    target = opened.target(device, runtime, threads)
    table = opened.profile(target, minutes)
    if json:
        certificate = table.certificate and asdict(table.certificate)
        print_json({"run": str(run), "target": target.to_dict(), "certificate": certificate})
    else:
        print(f"{target.name}: {table.certificate}\nnext: edgenas search --run {run} --device {device}")
