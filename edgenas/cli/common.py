"""Options that several commands have, and printing of JSON and tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from edgenas.errors import UsageError, printable
from edgenas.units import format_bytes

if TYPE_CHECKING:
    from edgenas.devices import Target

RunOption = Annotated[Path, typer.Option("--run", help="The run folder.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
DeviceOption = Annotated[str, typer.Option("--device", help="A device profile: a shipped name or a YAML file.")]
DevicesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--device", help="A device profile: a shipped name or a YAML file; repeatable.", show_default="localhost"
    ),
]
RuntimeOption = Annotated[str | None, typer.Option("--runtime", help="The runtime; by default the profile's.")]
PrecisionOption = Annotated[
    str | None, typer.Option("--precision", help="fp32, fp16, dynamic or int8; by default the profile's.")
]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME=SIZES", help="The shape of an input, as image=1x3x224x224; repeatable."),
]
InputsOption = Annotated[
    Path | None, typer.Option(metavar="FILE.npz", help="Arrays for the inputs, by name, instead of random ones.")
]
AcceleratorOption = Annotated[
    str, typer.Option("--device", help="What to compute on: cpu, cuda, or auto for cuda where torch finds a GPU.")
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", help="Threads; by default the profile's.")]


def read_devices(devices: Sequence[str] | None) -> list[str]:
    """Return the devices of ``--device``, by default this machine; UsageError for one that is given twice."""
    names = list(devices or ["localhost"])
    for place, name in enumerate(names):
        if name in names[:place]:
            raise UsageError(f"--device {name} is given twice; give it once")
    return names


def load_target(
    device: str, runtime: str | None = None, threads: int | None = None, precision: str | None = None
) -> Target:
    """Return the target that the options name; UsageError, listing what exists, for an unknown name."""
    from edgenas.devices import Target, load_profile

    return Target(load_profile(device), runtime, precision, threads)


def print_json(document: Any) -> None:
    """Print the command's one JSON document."""
    json.dump(document, sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")


def print_lines(*lines: str, file: TextIO | None = None) -> None:
    """Print lines, by default on standard output. All text of commands but JSON goes through here or a table."""
    for line in lines:
        print(printable(line), file=file)


def format_peak_bytes(peak_bytes: int | None) -> str:
    """Return the cell of a measured peak memory."""
    return "not measured" if peak_bytes is None else format_bytes(peak_bytes)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", texts: int = 1) -> None:
    """Print a table on standard output, without wrapping where that is no terminal.

    The first ``texts`` columns are aligned left, the others right.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < texts else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False, emoji=False)
    if title:
        console.print(printable(title))
    console.print(table)
