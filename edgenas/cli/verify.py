"""``edgenas verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgenas.cli.common import JsonOption, ThreadsOption, load_target, print_json, print_lines

EXAMPLE = "Example: edgenas verify ship/onnx-fp32.zip"


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle: its folder or its .zip.", show_default=False)],
    device: Annotated[
        str | None,
        typer.Option(help="Run the sample on this device too: a shipped profile or a YAML file.", show_default=False),
    ] = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Check that a bundle is intact and computes what it did when it was made; needs neither torch nor a run."""
    from edgenas.pipeline.verify_bundle import verify_bundle

    report = verify_bundle(bundle, None if device is None else load_target(device, threads=threads))
    if json:
        print_json(report.to_dict())
        return
    print_lines(f"{bundle}: intact, {report.export_format}; its sample is {report.label!r}")
    print_lines(f"here: logits as recorded to {report.max_difference:.1e}, at most {report.allowed:.1e} allowed")
    if report.foreign_scripts is not None:
        print_lines(
            f"its scripts are of edgenas {report.foreign_scripts!r} and were not compared; read them before use"
        )
    if report.device_difference is not None:
        print_lines(f"on {report.target}: to {report.device_difference:.1e}")
