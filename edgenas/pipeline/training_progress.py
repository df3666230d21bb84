"""Running a trainer with progress and metrics: of a supernet, or of a subnet that is trained alone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgenas.accuracy import Evaluator
from edgenas.data import DataSet
from edgenas.ofa import Ranks, Supernet, Trainer, TrainingStep
from edgenas.ofa.tensorboard import TensorBoardWriter
from edgenas.ofa.threads import count_torch_threads
from edgenas.pipeline.progress import Bar, Progress
from edgenas.pipeline.run_folder import TrainingFolder
from edgenas.pipeline.training_metrics import TrainingMetrics, append_metrics, begin_metrics
from edgenas.space import Architecture

_METRICS_SECONDS = 10.0
# Subnets are evaluated after an epoch, for at most this share of the time.
_EVALUATION_SHARE = 0.05
_VALIDATION_IMAGES = 1000
_PLOTTED = ("loss", "accuracy", "learning_rate", "images_per_second", "smallest", "largest")


@dataclass(frozen=True)
class Watched:
    """What is shown of a training.

    Attributes:
        name: The step's name in the progress.
        folder: The folder of the metrics.
        subnets: The subnets that are evaluated between epochs, by their names in the metrics.
        data: The data set.
        seed: The seed of the training.
        tensorboard: Whether TensorBoard's files are written, too.
    """

    name: str
    folder: TrainingFolder
    subnets: Mapping[str, Architecture]
    data: DataSet
    seed: int
    tensorboard: bool = False


def run_trainer(trainer: Trainer, watched: Watched, ranks: Ranks, progress: Progress) -> None:
    """Train to the end of the schedule; the first of several processes shows progress and writes metrics."""
    if not ranks.is_first:
        trainer.run(lambda step: None)
        return
    images_done, folder = trainer.images_done, watched.folder
    begin_metrics(folder.metrics, images_done)
    with ExitStack() as stack:
        stack.enter_context(folder.running())
        writer = TensorBoardWriter(folder.tensorboard, images_done) if watched.tensorboard else None
        board = None if writer is None else stack.enter_context(writer)
        bar = stack.enter_context(progress.step(watched.name, 1.0))
        reporter = _Reporter(bar, watched, ranks, board)
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

    def __init__(self, bar: Bar, watched: Watched, ranks: Ranks, board: TensorBoardWriter | None) -> None:
        self._bar, self._watched, self._board = bar, watched, board
        self._data, self._accelerator = _limit_validation(watched.data), ranks.accelerator
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
        """Write the metrics of an epoch, with accuracies of subnets where evaluating has taken little time."""
        metrics = self._make_metrics(step)
        began = time.monotonic()
        if step.share == 1.0 or self._evaluating_s <= _EVALUATION_SHARE * (began - self._began):
            evaluator = Evaluator(supernet, self._data, self._watched.seed, count_torch_threads(), self._accelerator)
            found: dict[str, Any] = {name: evaluator(subnet) for name, subnet in self._watched.subnets.items()}
            metrics = replace(metrics, **found)
            self._latest = "".join(f"  {name} {accuracy:.1%}" for name, accuracy in found.items())
            self._evaluating_s += time.monotonic() - began
        self._write(metrics)

    def _write(self, metrics: TrainingMetrics) -> None:
        append_metrics(self._watched.folder.metrics, metrics)
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
