"""The step that trains a run's supernet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgenas.data import load_data
from edgenas.files import write_document
from edgenas.ofa import Schedule, Trainer, TrainingFiles, TrainingStep, load_schedule
from edgenas.pipeline.progress import Bar

if TYPE_CHECKING:
    from edgenas.pipeline.run import Run


def train(run: Run, data: str, schedule: str | Mapping[str, Any] | Schedule, seed: int) -> None:
    """Train the supernet of ``run`` to the end of the schedule; does nothing when it is trained."""
    data_set = load_data(data)
    files = TrainingFiles(run.layout.checkpoint, run.layout.teacher)
    trainer = Trainer(run.space, data_set, load_schedule(schedule), seed, files)
    with run.layout.writing():
        if trainer.finished:
            run.progress.say("train     already done")
            return
        write_document(run.layout.data, "data", 1, data_set.summary())
        with run.progress.step("train", 1.0) as bar:
            trainer.run(_Speedometer(bar))


class _Speedometer:
    """Adds images per second, smoothed over the last steps, to what a training step showed."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._began = time.monotonic()
        self._first: int | None = None

    def __call__(self, step: TrainingStep) -> None:
        if self._first is None:
            self._first, self._began = step.done, time.monotonic()
        speed = (step.done - self._first) / max(time.monotonic() - self._began, 1e-9)
        note = f"{step.phase}  loss {step.loss:.2f}  accuracy {step.accuracy:.1%}  {speed:.0f} images/s"
        self._bar(step.done / step.total, note)
