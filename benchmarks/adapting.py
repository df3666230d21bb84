"""Compare adapting a trained supernet to other classes with training from scratch, at equal images seen.

    python -m benchmarks.adapting FOLDER

Trains a supernet on five classes of the CIFAR-10 JPEG files, then on the five others, of which 500 images each are for
training: from its weights, and from scratch, each with several lengths and seeds. Prints test accuracies. Interrupted,
it goes on. EDGENAS_DATA names the folder of cifar10-jpeg.zip.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np

from edgenas.accuracy import Evaluator
from edgenas.data import DataSet, load_data
from edgenas.ofa import SCHEDULES, InitialWeights, Schedule, Supernet, Trainer, TrainingFiles, load_checkpoint
from edgenas.space import MobileNetV3

SPACE = MobileNetV3(width=0.35, resolutions=(32,), classes=5)
SOURCE = ("airplane", "automobile", "bird", "cat", "deer")
TARGET = ("dog", "frog", "horse", "ship", "truck")
EPOCHS, SEEDS = (1, 3, 10), (0, 1, 2)


def main() -> None:
    """Train what has no result yet, then print a table of images seen and accuracies."""
    folder = Path(sys.argv[1])
    source = load_photos(folder / "source", SOURCE, 4000)
    files = TrainingFiles(folder / "source.checkpoint", folder / "source.teacher")
    Trainer(SPACE, source, SCHEDULES["sandwich-medium"], 0, files).run(lambda step: None)
    initial = InitialWeights(load_checkpoint(files.checkpoint).supernet, "source", "")
    target = load_photos(folder / "target", TARGET, 500)
    print("| images seen | way | largest: mean of 3 seeds | least, greatest | 10 random: mean |\n|---|---|---|---|---|")
    for epochs in EPOCHS:
        for way, weights in (("adapting", initial), ("from scratch", None)):
            rows = np.array([_accuracies(folder, target, epochs, seed, way, weights) for seed in SEEDS])
            largest, others = rows[:, 0], rows[:, 1:]
            seen = epochs * (len(target.train) // 64) * 64
            cells = (f"{largest.mean():.1%}", f"{largest.min():.1%}, {largest.max():.1%}", f"{others.mean():.1%}")
            print(f"| {seen:,} | {way} | {' | '.join(cells)} |", flush=True)


def load_photos(folder: Path, classes: tuple[str, ...], count: int) -> DataSet:
    """Return a folder of some classes with so many training images each, and all their test images."""
    if not folder.exists():
        with zipfile.ZipFile(Path(os.environ["EDGENAS_DATA"]) / "cifar10-jpeg.zip") as archive:
            for part, most in (("train", count), ("test", 1000)):
                for label in classes:
                    names = sorted(each for each in archive.namelist() if f"{part}/{label}/" in f"/{each}")
                    for name in [each for each in names if each.endswith(".jpg")][:most]:
                        path = folder / part / label / Path(name).name
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(archive.read(name))
    return load_data(str(folder))


def _accuracies(
    folder: Path, data: DataSet, epochs: int, seed: int, way: str, initial: InitialWeights | None
) -> list[float]:
    name = f"{way.replace(' ', '-')}-{epochs}-{seed}"
    result = folder / f"{name}.json"
    if not result.exists():
        files = TrainingFiles(folder / f"{name}.checkpoint", folder / f"{name}.teacher")
        supernet = Trainer(SPACE, data, _schedule(epochs), seed, files, initial=initial).run(lambda step: None)
        result.write_text(json.dumps(_evaluate(supernet, data)))
    accuracies: list[float] = json.loads(result.read_text())
    return accuracies


def _schedule(epochs: int) -> Schedule:
    """Return the schedule of both ways: that of adapting, at the higher rate of training from scratch."""
    (phase,) = SCHEDULES["sandwich-small"].phases
    phase = dataclasses.replace(phase, epochs=epochs, warmup_epochs=min(1, epochs // 3))
    return dataclasses.replace(SCHEDULES["sandwich-small"], phases=(phase,))


def _evaluate(supernet: Supernet, data: DataSet) -> list[float]:
    evaluator = Evaluator(supernet, data)
    random = SPACE.decode(SPACE.sample_distinct(12, np.random.default_rng(0)))[2:]
    subnets = [evaluator.calibrated_subnet(each) for each in (SPACE.largest, *random)]
    return [evaluator.accuracy(each, data.test, (32, 32)) for each in subnets]


if __name__ == "__main__":
    main()
