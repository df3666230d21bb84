"""``edgenas finetune``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from edgenas.cli.common import AcceleratorOption, JsonOption, RunOption, print_json, print_lines
from edgenas.shell import format_command

EXAMPLE = "Example: edgenas finetune --run runs/digits --arch chosen"


def command(
    run: RunOption,
    arch: Annotated[
        str,
        typer.Option(help="An id, chosen (the only choice of the run), min, max, or a JSON file.", show_default=False),
    ],
    epochs: Annotated[int, typer.Option(help="How often each training image is seen.")] = 10,
    max_steps: Annotated[int | None, typer.Option("--max-steps", help="At most so many steps.")] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="The highest rate, which falls to zero as a cosine; by default 0.05, from scratch 0.1."),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Begin with random weights instead of inherited ones, to compare.")
    ] = False,
    device: AcceleratorOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train one subnet alone, taught by the supernet's largest network; resumes where it was interrupted.

    Its weights get an id of their own. choose tries them beside the inherited ones where they are as accurate or
    more; export takes the id.
    """
    from edgenas.ofa import is_first_rank, select_accelerator
    from edgenas.pipeline import Run

    select_accelerator(device)  # what is quickly checked comes first
    opened = Run(run)
    architecture = opened.architecture(arch)
    if arch == "chosen":
        architecture = architecture.inherited  # the choice may be fine-tuned already
    subnet = opened.finetune(architecture, epochs, max_steps, learning_rate, from_scratch, device)
    if not is_first_rank():
        return
    if json:
        print_json({"run": str(run), **asdict(subnet)})
        return
    print_lines(
        f"{subnet.architecture}: accuracy {subnet.accuracy_finetuned:.2%}, with inherited weights"
        f" {subnet.accuracy_inherited:.2%}, on {subnet.validation_images:,} validation images",
        f"trained alone on {subnet.images:,} images ({subnet.epochs:g} epochs), from {subnet.began_with}, taught by"
        f" {subnet.teacher}",
    )
    if opened.folder.choices():
        print_lines(
            f"next, with the device and the budget of the choice: {format_command('choose', '--run', run)} ...;"
            " it tries this subnet's file there, too"
        )
    else:
        print_lines(f"next: {format_command('export', '--run', run, '--arch', subnet.architecture, '--out', 'ship')}")
