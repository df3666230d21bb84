"""The state of a run's training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgenas.ofa import load_checkpoint
from edgenas.ofa.checkpoint import has_ended_training
from edgenas.pipeline.training_metrics import TrainingMetrics, read_metrics
from edgenas.pipeline.workspace import Workspace


@dataclass(frozen=True)
class TrainingStatus:
    """How far a run's training is.

    Attributes:
        state: Whether it has not begun, is running now, was interrupted, or has ended.
        latest: The latest metrics; None before the first, and for weights that were imported.
        evaluated: The latest metrics with accuracies of the smallest and the largest subnet.
    """

    state: Literal["not begun", "running", "interrupted", "finished"]
    latest: TrainingMetrics | None
    evaluated: TrainingMetrics | None


def read_training_status(workspace: Workspace) -> TrainingStatus:
    """Return the state of a run's training, as ``Run.status`` describes."""
    folder, path = workspace.folder, workspace.folder.checkpoint
    metrics = read_metrics(folder.metrics)
    latest = metrics[-1] if metrics else None
    evaluated = next((each for each in reversed(metrics) if each.largest is not None), None)
    if path.exists() and has_ended_training(load_checkpoint(path), str(path)):
        return TrainingStatus("finished", latest, evaluated)
    if folder.is_being_trained():
        return TrainingStatus("running", latest, evaluated)
    return TrainingStatus("interrupted" if path.exists() or latest is not None else "not begun", latest, evaluated)
