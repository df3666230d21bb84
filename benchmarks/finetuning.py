"""Compare fine-tuning of one subnet with training it from scratch, at equal images seen.

    python -m benchmarks.finetuning FOLDER

Trains small supernets on 500 images each of five classes of the CIFAR-10 JPEG files, one for each seed. Then trains the
same random subnet of each alone: from the weights that it inherits, and from random ones, both taught by the
supernet's largest network, with several lengths. Prints test accuracies. Interrupted, it goes on. EDGENAS_DATA names
the folder of cifar10-jpeg.zip.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np

from benchmarks.adapting import TARGET, load_photos
from edgenas.accuracy import Evaluator
from edgenas.data import DataSet
from edgenas.ofa import SCHEDULES
from edgenas.pipeline import Run
from edgenas.pipeline.finetuned import load_evaluator
from edgenas.pipeline.progress import Silent
from edgenas.space import Architecture, MobileNetV3, Stage

SPACE = MobileNetV3(
    width=0.5,
    resolutions=(16,),
    classes=5,
    kernel_sizes=(3, 5),
    depths=(1, 2),
    expand_ratios=(2, 3),
    stem_stride=1,
    stages=(Stage(32, 2, "relu", False), Stage(64, 2, "hswish", True)),
    head=(96, 128),
)
SUBNET = SPACE.decode(SPACE.sample(1, np.random.default_rng(0)))[0]
EPOCHS, SEEDS = (1, 3, 10), (0, 1)


def main() -> None:
    """Train what is not there yet, then print a table of images seen and accuracies."""
    folder = Path(sys.argv[1])
    data = load_photos(folder / "photos", TARGET, 500)
    runs = [_train_supernet(folder / f"seed-{seed}", data, seed) for seed in SEEDS]
    print("| images seen | weights | test accuracy: mean of 2 seeds | least, greatest |\n|---|---|---|---|")
    _print_row("0", "inherited", [_test_accuracy(run, SUBNET) for run in runs])
    for epochs in EPOCHS:
        for way, from_scratch in (("fine-tuned", False), ("from scratch", True)):
            subnets = [run.finetune(SUBNET, epochs, from_scratch=from_scratch, device="cpu") for run in runs]
            accuracies = [
                _test_accuracy(run, run.space.from_id(each.architecture))
                for run, each in zip(runs, subnets, strict=True)
            ]
            _print_row(f"{subnets[0].images:,}", way, accuracies)
    _print_row("", "the teachers, the largest networks", [_test_accuracy(run, SPACE.largest) for run in runs])


def _train_supernet(folder: Path, data: DataSet, seed: int) -> Run:
    run = Run(folder, SPACE, progress=Silent())
    (phase,) = SCHEDULES["sandwich-small"].phases
    schedule = dataclasses.replace(SCHEDULES["sandwich-small"], phases=(dataclasses.replace(phase, epochs=10),))
    run.train(data, schedule, seed, "cpu")
    return run


def _test_accuracy(run: Run, architecture: Architecture) -> float:
    evaluator: Evaluator = load_evaluator(run.workspace, architecture)
    subnet = evaluator.calibrated_subnet(architecture)
    return evaluator.accuracy(subnet, run.workspace.data.test, architecture.image_size)


def _print_row(images: str, way: str, accuracies: list[float]) -> None:
    found = np.array(accuracies)
    print(f"| {images} | {way} | {found.mean():.1%} | {found.min():.1%}, {found.max():.1%} |", flush=True)


if __name__ == "__main__":
    main()
