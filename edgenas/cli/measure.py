"""``edgenas measure``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgenas.cli.common import (
    DeviceOption,
    JsonOption,
    RuntimeOption,
    ThreadsOption,
    make_target,
    print_json,
    print_table,
)
from edgenas.units import format_bytes, format_ms

if TYPE_CHECKING:
    from edgenas.graph import GraphSummary
    from edgenas.profilers import Measurement

EXAMPLE = "Example: edgenas measure model.onnx --device localhost"


def command(
    model: Annotated[Path, typer.Argument(help="An ONNX file.", show_default=False)],
    device: DeviceOption = "localhost",
    runtime: RuntimeOption = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Measure any model file on a device, with its conditions."""
    from edgenas.graph import summarise
    from edgenas.profilers import measure

    target = make_target(device, runtime, threads)
    summary = summarise(model)
    measurement = measure(model, target)
    if json:
        print_json(_document(model, measurement, summary))
    else:
        _print(model, target.name, measurement, summary)


def _document(model: Path, measurement: Measurement, summary: GraphSummary) -> dict[str, Any]:
    derived = {
        "median_ms": measurement.median_ms,
        "interval_95_ms": list(measurement.interval_ms),
        "p90_ms": measurement.p90_ms,
    }
    graph = {"macs": summary.macs, "params": summary.params, "activation_bytes": summary.activation_bytes}
    unknown = {"operators_without_macs": summary.unsupported}
    return {"model": str(model), **derived, "graph": {**graph, **unknown}, **measurement.to_dict()}


def _print(model: Path, target: str, measurement: Measurement, summary: GraphSummary) -> None:
    low, high = measurement.interval_ms
    peak = measurement.peak_bytes
    unknown = ", ".join(f"{count} {name}" for name, count in summary.unsupported.items())
    rows = [
        ("median latency", format_ms(measurement.median_ms)),
        ("95% interval, this process", f"{format_ms(low)} to {format_ms(high)}"),
        ("90th percentile", format_ms(measurement.p90_ms)),
        ("runs", str(len(measurement.samples_ms))),
        ("peak memory of the process", "not measured" if peak is None else format_bytes(peak)),
        ("peak activations of the graph", format_bytes(summary.activation_bytes)),
        ("multiply-accumulates", f"{summary.macs / 1e6:.2f} M" + (f" (without {unknown})" if unknown else "")),
        ("parameters", f"{summary.params / 1e6:.3f} M"),
        ("verdict", str(measurement.verdict)),
    ]
    print_table((str(model), target + (" SYNTHETIC" if measurement.synthetic else "")), rows)
