"""Compare three ways to train a supernet at equal images seen, on a third of Fashion-MNIST.

    python -m benchmarks.schedules FOLDER [SCHEDULE:SEED ...]

Trains each schedule with each seed in FOLDER, one after the other, and prints a
table of test accuracies and seconds. Interrupted, it goes on.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.supernet import measure_test_accuracy
from edgenas.accuracy import Evaluator
from edgenas.data import DataSet, Split, load_data
from edgenas.data.images import split_indices_by_class
from edgenas.ofa import SCHEDULES, Trainer, TrainingFiles
from edgenas.space import MobileNetV3

SPACE = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
TRAININGS = [f"{name}-medium:{seed}" for seed in (0, 1) for name in ("shrink", "sandwich", "single-path")]


def main() -> None:
    """Train what has no result yet, then print all results."""
    folder = Path(sys.argv[1])
    data = _third(load_data("fashion_mnist"))
    rows = []
    for training in sys.argv[2:] or TRAININGS:
        result = folder / f"{training.replace(':', '-')}.json"
        if not result.exists():
            folder.mkdir(parents=True, exist_ok=True)
            result.write_text(json.dumps(_train(folder, data, training)))
        rows.append(json.loads(result.read_text()))
    print("| schedule | seed | smallest | largest | 20 random: mean | least | (mean + largest) / 2 | s |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row['cells'])} |")


def _third(data: DataSet) -> DataSet:
    """Return the data set with a third of its training images of each class."""
    kept, _, _ = split_indices_by_class(data.train.labels, (1 / 3, 2 / 3), np.random.default_rng(0))
    train = Split(data.train.images[kept], data.train.labels[kept], data.train.indices[kept])
    return dataclasses.replace(data, train=train)


def _train(folder: Path, data: DataSet, training: str) -> dict[str, list[str]]:
    name, seed = training.split(":")
    files = TrainingFiles(folder / f"{name}-{seed}.checkpoint", folder / f"{name}-{seed}.teacher")
    began = time.monotonic()
    supernet = Trainer(SPACE, data, SCHEDULES[name], int(seed), files).run(lambda step: None)
    seconds = time.monotonic() - began
    smallest, largest, others = measure_test_accuracy(SPACE, data, Evaluator(supernet, data))
    figures = (smallest, largest, others.mean(), others.min(), (others.mean() + largest) / 2)
    return {"cells": [name, seed, *(f"{100 * figure:.2f}%" for figure in figures), f"{seconds:.0f}"]}


if __name__ == "__main__":
    main()
