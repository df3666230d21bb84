"""The step that trains a run's supernet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgenas.accuracy import Evaluator
from edgenas.data import DataSet, load_data
from edgenas.files import write_document
from edgenas.ofa import Ranks, Schedule, Supernet, Trainer, TrainingFiles, TrainingStep, join_ranks, load_schedule
from edgenas.ofa.tensorboard import TensorBoardWriter
from edgenas.pipeline.progress import Bar, Silent
from edgenas.pipeline.training_metrics import TrainingMetrics, append_metrics, begin_metrics
from edgenas.pipeline.workspace import Workspace

_METRICS_SECONDS = 10.0
# The smallest and the largest subnet are evaluated after an epoch, for at most this share of the time.
_EVALUATION_SHARE = 0.05
_PLOTTED = ("loss", "accuracy", "learning_rate", "images_per_second", "smallest", "largest")


def train(
    workspace: Workspace,
    data: str | Mapping[str, Any] | DataSet,
    schedule: str | Mapping[str, Any] | Schedule,
    seed: int,
    accelerator: str = "auto",
    tensorboard: bool = False,
) -> None:
    """Train the supernet to the end of the schedule, as ``Run.train`` describes."""
    with join_ranks(accelerator) as ranks, workspace.folder.writing() if ranks.is_first else nullcontext():
        ranks.wait()  # the first has the lock and has removed what a killed process left
        _train(workspace, load_data(data), load_schedule(schedule), seed, ranks, tensorboard)


def _train(workspace: Workspace, data: DataSet, schedule: Schedule, seed: int, ranks: Ranks, tensorboard: bool) -> None:
    folder, progress = workspace.folder, workspace.progress if ranks.is_first else Silent()
    trainer = Trainer(workspace.space, data, schedule, seed, TrainingFiles(folder.checkpoint, folder.teacher), ranks)
    if trainer.finished:
        progress.say("train     already done")
        return
    if not ranks.is_first:
        trainer.run(lambda step: None)
        return
    write_document(folder.data, "data", 1, data.summary())
    for warning in data.warnings:
        progress.say(f"train     {warning}")
    begin_metrics(folder.metrics, trainer.images_done)
    with ExitStack() as stack:
        board = stack.enter_context(TensorBoardWriter(folder.tensorboard)) if tensorboard else None
        bar = stack.enter_context(progress.step("train", 1.0))
        reporter = _Reporter(bar, folder.metrics, data, seed, board)
        trainer.run(reporter.on_step, reporter.on_epoch)


class _Reporter:
    """The callbacks of training: progress on the bar, metrics in the run folder."""

    def __init__(self, bar: Bar, path: Path, data: DataSet, seed: int, board: TensorBoardWriter | None) -> None:
        self._bar, self._path, self._data, self._seed, self._board = bar, path, data, seed, board
        self._began = self._written = time.monotonic()
        self._first: TrainingStep | None = None
        self._evaluating_s = 0.0
        self._latest = ""

    def on_step(self, step: TrainingStep) -> None:
        """Show a step, and write its metrics when the last ones are some seconds old."""
        self._first = self._first or step
        metrics = self._make_metrics(step)
        note = f"{step.phase}  loss {step.loss:.2f}  {metrics.images_per_second:.0f} images/s{self._latest}"
        self._bar(step.share, note)
        if time.monotonic() - self._written >= _METRICS_SECONDS and not step.ends_epoch:
            self._write(metrics)

    def on_epoch(self, step: TrainingStep, supernet: Supernet) -> None:
        """Write the metrics of an epoch, with the accuracy of the extremes where evaluating has taken little time."""
        metrics = self._make_metrics(step)
        began = time.monotonic()
        if step.share == 1.0 or self._evaluating_s <= _EVALUATION_SHARE * (began - self._began):
            space, evaluator = supernet.space, Evaluator(supernet, self._data, self._seed)
            metrics = replace(metrics, smallest=evaluator(space.smallest), largest=evaluator(space.largest))
            self._latest = f"  smallest {metrics.smallest:.1%}  largest {metrics.largest:.1%}"
            self._evaluating_s += time.monotonic() - began
        self._write(metrics)

    def _write(self, metrics: TrainingMetrics) -> None:
        append_metrics(self._path, metrics)
        if self._board is not None:
            self._board.write(metrics.images, {name: getattr(metrics, name) for name in _PLOTTED})
        self._written = time.monotonic()

    def _make_metrics(self, step: TrainingStep) -> TrainingMetrics:
        first = self._first or step
        seconds = max(time.monotonic() - self._began, 1e-9)
        return TrainingMetrics(
            time=round(time.time(), 3),
            phase=step.phase,
            images=step.done,
            total_images=step.total,
            share=step.share,
            loss=step.loss,
            accuracy=step.accuracy,
            learning_rate=step.learning_rate,
            images_per_second=round((step.done - first.done) / seconds, 3),
            seconds_left=round(seconds * (1 - step.share) / max(step.share - first.share, 1e-9), 1)
            if step.share > first.share
            else 0.0,
        )
