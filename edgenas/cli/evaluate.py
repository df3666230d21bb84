"""``edgenas evaluate``."""

from __future__ import annotations

from dataclasses import asdict
from math import sqrt
from typing import TYPE_CHECKING, Annotated

import typer

from edgenas.cli.common import AcceleratorOption, JsonOption, RunOption, print_json, print_lines
from edgenas.errors import UsageError
from edgenas.shell import format_command

if TYPE_CHECKING:
    from edgenas.accuracy import AccuracyPredictor
    from edgenas.pipeline import Run

_LEAST_TAU = 0.3  # of a predictor that is worth searching by
_MOST_STDS = 3.0  # above chance, of the best accuracy of many guesses
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
        print_lines(*_list_doubts(opened, predictor), f"next: {format_command('profile', '--run', run)}")


def _list_doubts(run: Run, predictor: AccuracyPredictor) -> list[str]:
    """Return a line on accuracies that are those of guessing, or too equal to rank subnets by."""
    images, chance = len(run.workspace.data.validation), 1 / run.space.classes
    noise, is_imported = sqrt(chance * (1 - chance) / images), "imported" in run.workspace.recipe
    if is_imported and predictor.accuracy.max() <= chance + _MOST_STDS * noise:
        return [
            f"no better than guessing ({chance:.1%}): are the folders, sorted by name, in the order of the weights'"
            " classes?"
        ]
    if predictor.kendall_tau >= _LEAST_TAU:
        return []  # it is no number where all accuracies are equal
    return [
        "the predictor hardly ranks these subnets: their accuracies differ by little more than the noise of"
        f" {images} validation images; more images{'' if is_imported else ' or longer training'} would tell them apart"
    ]
