"""The step that trains a run's supernet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from edgenas.data import DataSet, load_data
from edgenas.files import write_document
from edgenas.ofa import Schedule, Trainer, TrainingFiles, TrainingStep, load_schedule
from edgenas.pipeline.progress import Bar
from edgenas.pipeline.workspace import Workspace


def train(
    workspace: Workspace,
    data: str | Mapping[str, Any] | DataSet,
    schedule: str | Mapping[str, Any] | Schedule,
    seed: int,
) -> None:
    """Train the supernet to the end of the schedule, as ``Run.train`` describes."""
    data_set, folder = load_data(data), workspace.folder
    files = TrainingFiles(folder.checkpoint, folder.teacher)
    trainer = Trainer(workspace.space, data_set, load_schedule(schedule), seed, files)
    with folder.writing():
        if trainer.finished:
            workspace.progress.say("train     already done")
            return
        write_document(folder.data, "data", 1, data_set.summary())
        for warning in data_set.warnings:
            workspace.progress.say(f"train     {warning}")
        with workspace.progress.step("train", 1.0) as bar:
            trainer.run(_ImageRate(bar))


class _ImageRate:
    """A callback of training steps that shows loss, accuracy and images per second since the first step."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._began = time.monotonic()
        self._first_images: int | None = None

    def __call__(self, step: TrainingStep) -> None:
        if self._first_images is None:
            self._first_images, self._began = step.done, time.monotonic()
        rate = (step.done - self._first_images) / max(time.monotonic() - self._began, 1e-9)
        note = f"{step.phase}  loss {step.loss:.2f}  accuracy {step.accuracy:.1%}  {rate:.0f} images/s"
        self._bar(step.done / step.total, note)
