"""``edgenas export``."""

from __future__ import annotations

from pathlib import Path
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

EXAMPLE = "Example: edgenas export --run runs/digits --arch max --out ship"


def command(
    run: RunOption,
    arch: Annotated[str, typer.Option(help="An id, min, max, or a JSON file.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The bundle's folder.", show_default=False)],
    device: DeviceOption = "localhost",
    runtime: RuntimeOption = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Export a subnet as a bundle, verified against PyTorch."""
    from edgenas.pipeline import Run
    from edgenas.pipeline.architectures import resolve_architecture

    opened = Run(run)
    target = opened.target(device, runtime, threads)
    bundle = opened.export(resolve_architecture(opened.space, arch), target, out)
    if json:
        print_json({"run": str(run), "bundle": str(bundle.path), "model": str(bundle.model), "card": bundle.card})
        return
    card = bundle.card
    agreement = card["agreement_with_pytorch"]
    reached, images = card["accuracy"]["test"], card["images"]["test"]
    print(f"{bundle.model}: test accuracy {reached:.2%} of {images} images, by running the file")
    print(
        f"against PyTorch on {agreement['images']} images: largest difference {agreement['max_difference']:.1e},"
        f" same class {agreement['top1']:.2%}"
    )
    print(f"next: edgenas measure {bundle.model} --device {device}")
