"""The step that trains a run's supernet."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from edgenas.data import DataSet, load_data
from edgenas.errors import UsageError
from edgenas.files import write_document
from edgenas.ofa import InitialWeights, Ranks, Schedule, Trainer, TrainingFiles, join_ranks, load_schedule
from edgenas.pipeline.initial_weights import load_initial_weights
from edgenas.pipeline.progress import Silent
from edgenas.pipeline.training_progress import Watched, run_trainer
from edgenas.pipeline.workspace import Workspace


def train(
    workspace: Workspace,
    data: str | Mapping[str, Any] | DataSet,
    schedule: str | Mapping[str, Any] | Schedule,
    seed: int,
    accelerator: str = "auto",
    tensorboard: bool = False,
    initial: str | Path | InitialWeights | None = None,
) -> None:
    """Train the supernet to the end of the schedule, as ``Run.train`` describes."""
    if isinstance(data, DataSet) and data.source is None:
        raise UsageError(
            f"data set {data.name} was not found by its name, as later steps must; pass what load_data returns"
        )
    weights = load_initial_weights(initial, workspace.space) if isinstance(initial, str | Path) else initial
    with join_ranks(accelerator) as ranks, workspace.folder.writing() if ranks.is_first else nullcontext():
        ranks.wait()  # the first has the lock and has removed what a killed process left
        files = TrainingFiles(workspace.folder.checkpoint, workspace.folder.training.teacher)
        loaded = load_data(data)
        trainer = Trainer(workspace.space, loaded, load_schedule(schedule), seed, files, ranks, weights)
        _train(workspace, trainer, loaded, seed, ranks, tensorboard)


def _train(workspace: Workspace, trainer: Trainer, data: DataSet, seed: int, ranks: Ranks, tensorboard: bool) -> None:
    folder, progress = workspace.folder, workspace.progress if ranks.is_first else Silent()
    if trainer.finished:
        progress.say("train     already done")
        return
    if ranks.is_first:
        write_document(folder.data, "data", 1, data.summary())
    for warning in data.warnings:
        progress.say(f"train     {warning}")
    extremes = {"smallest": workspace.space.smallest, "largest": workspace.space.largest}
    run_trainer(trainer, Watched("train", folder.training, extremes, data, seed, tensorboard), ranks, progress)
