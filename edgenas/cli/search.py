"""``edgenas search``."""

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
    print_json,
    print_lines,
    print_table,
)
from edgenas.registry import DEFAULT_STRATEGY
from edgenas.shell import format_command
from edgenas.units import format_bytes, format_latency_budget, format_ms

if TYPE_CHECKING:
    from edgenas.search import Front

EXAMPLE = "Example: edgenas search --run runs/digits --device localhost"
_SHOWN = 12


def command(
    run: RunOption,
    device: DeviceOption = "localhost",
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    seed: Annotated[int, typer.Option(help="Everything random follows from it.")] = 0,
    strategy: Annotated[str, typer.Option(help="nsga2, or a search strategy that a package adds.")] = DEFAULT_STRATEGY,
    json: JsonOption = False,
) -> None:
    """Search a device's accuracy-latency-memory front."""
    from edgenas.devices import is_absent
    from edgenas.pipeline import Run

    opened = Run(run)
    target = opened.target(device, runtime, threads, precision)
    front = opened.search([target], seed, strategy)
    if json:
        known = {"target": target.to_dict(), "source": front.source, "strategy": front.strategy}
        print_json({"run": str(run), **known, "front": _front_to_dicts(front)})
        return
    _print_front(front)
    budget = format_latency_budget(front.latency_ms[len(front) // 2])
    print_lines(f"all {len(front)}: {opened.folder.front(target.name)}")
    if is_absent(target.profile):
        print_lines(f"nothing can be measured on {target.profile.name}: all of it stays predicted")
    else:
        print_lines(f"next: {format_command('choose', '--run', run)} --device {target.cli_name} --latency {budget}")


def _front_to_dicts(front: Front) -> list[dict[str, float | str]]:
    columns = zip(front.architectures(), front.accuracy, front.latency_ms, front.peak_bytes, strict=True)
    return [
        {
            "architecture": each.id,
            "predicted_accuracy": float(accuracy),
            "predicted_latency_ms": float(latency),
            "predicted_peak_bytes": float(peak),
        }
        for each, accuracy, latency, peak in columns
    ]


def _print_front(front: Front) -> None:
    """Print a dozen subnets, evenly from the fastest to the slowest."""
    rows = _front_to_dicts(front)
    chosen = sorted({round(number * (len(rows) - 1) / (_SHOWN - 1)) for number in range(_SHOWN)})
    lines = [
        (
            str(rows[index]["architecture"]),
            f"{rows[index]['predicted_accuracy']:.2%}",
            format_ms(float(rows[index]["predicted_latency_ms"])),
            format_bytes(float(rows[index]["predicted_peak_bytes"])),
        )
        for index in chosen
    ]
    title = f"{len(chosen)} of {len(rows)} subnets on the front of {front.target}, predicted"
    print_table(("architecture", "accuracy", "latency", "peak memory"), lines, title)
