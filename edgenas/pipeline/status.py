"""The state of a training: of a run's supernet, or of a subnet that is fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgenas.errors import FormatError
from edgenas.ofa import load_checkpoint
from edgenas.ofa.checkpoint import has_ended_training
from edgenas.pipeline.finetune_command import format_finetune_command
from edgenas.pipeline.run_folder import RunFolder, TrainingFolder
from edgenas.pipeline.training_metrics import TrainingMetrics, read_metrics


@dataclass(frozen=True)
class TrainingStatus:
    """How far a training is.

    Attributes:
        state: Whether it has not begun, is running now, was interrupted, or has ended, or the weights were imported,
            or the checkpoint of a fine-tuning is damaged.
        latest: The latest metrics; None before the first, and for weights that were imported.
        evaluated: The latest metrics with accuracies on validation images.
        resumed_by: The command that resumes a fine-tuning that was interrupted; empty where no checkpoint says it.
        problem: What is wrong with the checkpoint of a fine-tuning; empty for one that can be read.
    """

    state: Literal["not begun", "running", "interrupted", "finished", "imported", "damaged"]
    latest: TrainingMetrics | None
    evaluated: TrainingMetrics | None
    resumed_by: str = ""
    problem: str = ""


def read_training_status(folder: TrainingFolder) -> TrainingStatus:
    """Return the state of the training of a supernet or a subnet in its folder."""
    metrics, path = read_metrics(folder.metrics), folder.checkpoint
    latest = metrics[-1] if metrics else None
    evaluated = next((each for each in reversed(metrics) if (each.largest, each.subnet) != (None, None)), None)
    if path.exists() and has_ended_training(checkpoint := load_checkpoint(path), str(path)):
        return TrainingStatus("imported" if "imported" in checkpoint.recipe else "finished", latest, evaluated)
    if folder.is_running():
        return TrainingStatus("running", latest, evaluated)
    return TrainingStatus("interrupted" if path.exists() or latest is not None else "not begun", latest, evaluated)


def read_finetuning_statuses(folder: RunFolder) -> dict[str, TrainingStatus]:
    """Return the states of all fine-tunings that have begun, by id. One that is not evaluated yet has not ended."""
    return {name: _read_finetuning_status(folder.root, folder.finetuned(name)) for name in folder.finetuned_ids()}


def _read_finetuning_status(run: Path, place: TrainingFolder) -> TrainingStatus:
    try:
        status = read_training_status(place)
        if status.state == "finished" and not place.result.exists():
            status = replace(status, state="running" if place.is_running() else "interrupted")
        if status.state in ("interrupted", "imported") and place.checkpoint.exists():  # imported weights are refused
            return replace(status, resumed_by=format_finetune_command(run, place.checkpoint))
    except FormatError as error:  # of one, which must not hide the others
        return TrainingStatus("damaged", None, None, problem=str(error))
    return status
