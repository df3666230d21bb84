"""``edgenas show``."""

from __future__ import annotations

from typing import Annotated

import typer

from edgenas.cli.common import JsonOption, RunOption, print_json, print_lines, print_table
from edgenas.units import format_bytes, format_count, format_ms, format_ms_part, is_resolved

EXAMPLE = "Example: edgenas show max --run runs/digits"


def command(
    arch: Annotated[str, typer.Argument(help="An id, chosen, min, max, or the path of a JSON file.")],
    run: RunOption,
    device: Annotated[
        list[str] | None,
        typer.Option(help="The devices of which latencies are shown; by default all that have a latency table."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show an architecture: the choices and costs of each block, and its predicted latencies."""
    from edgenas.pipeline import Run
    from edgenas.pipeline.show import show

    shown = show(Run(run), arch, device)
    if json:
        print_json(shown.to_dict())
        return
    names = [latency.target for latency in shown.latencies]
    rows = [
        (
            block.name,
            block.what,
            str(block.kernel or ""),
            f"{block.expand_ratio:g}" if block.expand_ratio else "",
            str(block.width),
            block.out,
            format_count(block.macs),
            format_count(block.params),
            *(format_ms_part(each.part_ms[block.name], each.latency_ms) for each in shown.latencies),
        )
        for block in shown.blocks
    ]
    columns = ("part", "what", "kernel", "expand", "width", "output", "MACs", "params", *names)
    print_table(columns, rows, f"{shown.architecture} of {shown.space}", texts=2)
    print_lines(
        f"resolution {shown.resolution}, {format_count(shown.macs)} MACs, {format_count(shown.params)} parameters,"
        f" in float32 {format_bytes(shown.weight_bytes)} of weights and {format_bytes(shown.activation_bytes)} of"
        " activations"
    )
    if shown.accuracy is not None:
        between = "" if shown.accuracy_std is None else f" ± {1.96 * shown.accuracy_std:.2%} (95%)"
        of = " with inherited weights" if "+" in shown.architecture else ""
        print_lines(f"accuracy {shown.accuracy:.2%}{between}{of}, predicted")
    for each in shown.finetuned:
        print_lines(
            f"{each.architecture}: accuracy {each.accuracy_finetuned:.2%}, evaluated; fine-tuned from"
            f" {each.began_with} on {each.images:,} images; inherited weights have {each.accuracy_inherited:.2%}"
        )
    for latency in shown.latencies:
        outside, whole = latency.overhead_ms, latency.latency_ms
        is_shown = is_resolved(outside, whole)
        overhead = f", {format_ms_part(outside, whole)} of it outside of the parts" if is_shown else ""
        memory = f"peak memory {format_bytes(latency.peak_bytes)}"
        print_lines(f"{latency.target}: {format_ms(latency.latency_ms)}{overhead}; {memory}, predicted")
