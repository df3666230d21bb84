"""``edgenas train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgenas.cli.common import AcceleratorOption, JsonOption, RunOption, print_json, print_lines
from edgenas.shell import format_command

EXAMPLE = "Example: edgenas train examples/digits.yaml --run runs/digits"


def command(
    run: RunOption,
    config: Annotated[
        Path | None,
        typer.Argument(help="Space, data, schedule and seed as YAML; by default the demo's on digits."),
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="RUN|FILE", help="Begin with the weights of a run, or of a file of a released checkpoint."
        ),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out images of a folder that cannot be read, naming the first.")
    ] = False,
    max_steps: Annotated[
        int | None, typer.Option("--max-steps", help="At most so many steps of each phase, to try a config out.")
    ] = None,
    device: AcceleratorOption = "auto",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard's files, to RUN/training/tensorboard.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Train a run's supernet; resumes where it was interrupted.

    On several processes: torchrun --nproc-per-node=N -m -- edgenas train ...
    """
    from edgenas.ofa import is_first_rank, select_accelerator
    from edgenas.ofa.tensorboard import check_tensorboard
    from edgenas.pipeline import Run
    from edgenas.pipeline.initial_weights import load_initial_weights
    from edgenas.pipeline.training_config import DEFAULT, TrainingConfig

    select_accelerator(device)  # what is quickly checked comes first
    if tensorboard:
        check_tensorboard()
    where = str(config or "the default config")
    settings = DEFAULT if config is None else TrainingConfig.load(config)
    schedule = settings.make_schedule(where, max_steps)
    # Before a run folder is made, and before all images are read.
    weights = None if initial is None else load_initial_weights(initial, settings.make_space(where))
    space, data = settings.check(where, schedule, skip_bad)
    opened = Run(run, space)
    opened.train(data, schedule, settings.seed, device, tensorboard, weights)
    if not is_first_rank():
        return
    if json:
        print_json({"run": str(run), "space": opened.space.to_dict(), **opened.workspace.recipe})
    else:
        print_lines(f"{run}: trained on {data.name}", f"next: {format_command('evaluate', '--run', run)}")
