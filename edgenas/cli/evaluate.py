"""``edgenas evaluate``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from edgenas.cli.common import AcceleratorOption, JsonOption, RunOption, print_json, print_lines
from edgenas.errors import UsageError
from edgenas.shell import format_command

_LEAST_TAU = 0.3  # of a predictor that is worth searching by
EXAMPLE = "Example: edgenas evaluate --run runs/digits --subnets 200"


def command(
    run: RunOption,
    subnets: Annotated[int, typer.Option(help="How many subnets to evaluate in all.")] = 200,
    data: Annotated[
        str | None, typer.Option(help="For imported weights: images of the same classes, as in a training config.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="With --data: leave out images that cannot be read, naming the first.")
    ] = False,
    device: AcceleratorOption = "auto",
    json: JsonOption = False,
) -> None:
    """Evaluate sampled subnets and fit the accuracy predictor.

    On several processes: torchrun --nproc-per-node=N -m -- edgenas evaluate ...
    """
    from edgenas.ofa import is_first_rank
    from edgenas.pipeline import Run

    if skip_bad and data is None:
        raise UsageError("--skip-bad is for --data FOLDER; give both")
    opened = Run(run)
    predictor = opened.evaluate(subnets, device, {"name": data, "skip_bad": True} if skip_bad else data)
    if not is_first_rank():
        return
    if json:
        accuracy = {"lowest": float(predictor.accuracy.min()), "highest": float(predictor.accuracy.max())}
        cross_validated = {"rmse": predictor.rmse, "kendall_tau": predictor.kendall_tau}
        by_distance = {"errors_by_distance": [asdict(group) for group in predictor.errors_by_distance]}
        known = {"run": str(run), "subnets": len(predictor.genes), "accuracy": accuracy}
        print_json({**known, **cross_validated, **by_distance})
    else:
        errors = ", ".join(
            f"{100 * group.rmse:.2f} points at {group.least} to {group.most}" for group in predictor.errors_by_distance
        )
        print_lines(str(predictor), f"RMSE by the choices that differ from the nearest subnet: {errors}")
        if not predictor.kendall_tau >= _LEAST_TAU:  # also where all accuracies are equal, which gives no number
            images = len(opened.workspace.data.validation)
            print_lines(
                f"the predictor hardly ranks these subnets: their accuracies differ by little more than the noise of"
                f" {images} validation images; more images or longer training would tell them apart"
            )
        print_lines(f"next: {format_command('profile', '--run', run)}")
