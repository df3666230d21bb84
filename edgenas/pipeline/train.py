"""The step that trains a run's supernet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgenas.accuracy import Evaluator
from edgenas.data import DataSet, load_data
from edgenas.errors import UsageError
from edgenas.files import write_document
from edgenas.ofa import (
    InitialWeights,
    Ranks,
    Schedule,
    Supernet,
    Trainer,
    TrainingFiles,
    TrainingStep,
    join_ranks,
    load_schedule,
)
from edgenas.ofa.tensorboard import TensorBoardWriter
from edgenas.ofa.threads import count_torch_threads
from edgenas.pipeline.initial_weights import load_initial_weights
from edgenas.pipeline.progress import Bar, Silent
from edgenas.pipeline.training_metrics import TrainingMetrics, append_metrics, begin_metrics
from edgenas.pipeline.workspace import Workspace

_METRICS_SECONDS = 10.0
# The smallest and the largest subnet are evaluated after an epoch, for at most this share of the time.
_EVALUATION_SHARE = 0.05
_VALIDATION_IMAGES = 1000
_PLOTTED = ("loss", "accuracy", "learning_rate", "images_per_second", "smallest", "largest")


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
        files = TrainingFiles(workspace.folder.checkpoint, workspace.folder.teacher)
        loaded = load_data(data)
        trainer = Trainer(workspace.space, loaded, load_schedule(schedule), seed, files, ranks, weights)
        _train(workspace, trainer, loaded, seed, ranks, tensorboard)


def _train(workspace: Workspace, trainer: Trainer, data: DataSet, seed: int, ranks: Ranks, tensorboard: bool) -> None:
    folder, progress = workspace.folder, workspace.progress if ranks.is_first else Silent()
    if trainer.finished:
        progress.say("train     already done")
        return
    if not ranks.is_first:
        trainer.run(lambda step: None)
        return
    write_document(folder.data, "data", 1, data.summary())
    for warning in data.warnings:
        progress.say(f"train     {warning}")
    images_done = trainer.images_done
    begin_metrics(folder.metrics, images_done)
    with ExitStack() as stack:
        stack.enter_context(folder.training())
        board = stack.enter_context(TensorBoardWriter(folder.tensorboard, images_done)) if tensorboard else None
        bar = stack.enter_context(progress.step("train", 1.0))
        reporter = _Reporter(bar, folder.metrics, _limit_validation(data), seed, ranks, board)
        trainer.run(reporter.on_step, reporter.on_epoch)


def _limit_validation(data: DataSet) -> DataSet:
    """Return the data set with few validation images: others wait for the evaluations between epochs."""
    split = data.validation
    if len(split) <= _VALIDATION_IMAGES:
        return data
    rows = np.random.default_rng(0).permutation(len(split))[:_VALIDATION_IMAGES]
    return replace(data, validation=split.select(np.sort(rows)))


class _Reporter:
    """The callbacks of training: progress on the bar, metrics in the run folder."""

    def __init__(
        self,
        bar: Bar,
        path: Path,
        data: DataSet,
        seed: int,
        ranks: Ranks,
        board: TensorBoardWriter | None,
    ) -> None:
        self._bar, self._path, self._data, self._seed, self._board = bar, path, data, seed, board
        self._accelerator = ranks.accelerator
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
            space, threads = supernet.space, count_torch_threads()
            evaluator = Evaluator(supernet, self._data, self._seed, threads, self._accelerator)
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
        seconds, gained = max(time.monotonic() - self._began, 1e-9), step.share - first.share
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
            seconds_left=round(seconds * (1 - step.share) / gained, 1) if gained > 0 else 0.0,
        )
