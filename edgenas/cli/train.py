"""``edgenas train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgenas.cli.common import JsonOption, RunOption, print_json, print_lines
from edgenas.shell import format_command

EXAMPLE = "Example: edgenas train --run runs/digits --config examples/digits.yaml"


def command(
    run: RunOption,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Space, data, schedule and seed as YAML; by default the demo's on digits."),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out images of a folder that cannot be read, naming the first.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Train a run's supernet; resumes where it was interrupted."""
    from edgenas.pipeline import Run
    from edgenas.pipeline.training_config import DEFAULT, TrainingConfig

    settings = DEFAULT if config is None else TrainingConfig.load(config)
    space, data = settings.check(str(config or "the default config"), skip_bad)
    opened = Run(run, space)
    opened.train(data, settings.schedule, settings.seed)
    if json:
        print_json({"run": str(run), "space": opened.space.to_dict(), **opened.workspace.recipe})
    else:
        print_lines(f"{run}: trained on {data.name}", f"next: {format_command('evaluate', '--run', run)}")
