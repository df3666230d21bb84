"""Train examples/digits.yaml from several seeds; print test accuracies of the smallest, largest and random subnets.

python benchmarks/digits.py --seeds 3
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import edgenas as en
from edgenas.pipeline.training_config import TrainingConfig

CONFIG = Path(__file__).parents[1] / "examples" / "digits.yaml"
RANDOM_SUBNETS = 20


def measure_seed(seed: int, folder: Path) -> str:
    """Train from one seed and return a row of the table; accuracies in percent of the test digits."""
    config = TrainingConfig.load(CONFIG)
    space = config.make_space(str(CONFIG))
    run = en.Run(folder, space)
    began = time.monotonic()
    run.train(config.data, config.schedule, seed)
    seconds = time.monotonic() - began

    def accuracy(architecture: en.Architecture) -> float:
        subnet = run.workspace.evaluator.calibrated_subnet(architecture)
        return 100 * run.workspace.evaluator.accuracy(subnet, run.workspace.data.test, architecture.image_size)

    sampled = space.decode(space.sample(RANDOM_SUBNETS, np.random.default_rng(100)))
    random = [accuracy(architecture) for architecture in sampled]
    cells = [accuracy(space.smallest), accuracy(space.largest), float(np.mean(random)), min(random)]
    return f"| {seed} | {seconds:.0f} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |"


def main() -> None:
    """Print one row per seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    print(f"| seed | training s | smallest | largest | mean of {RANDOM_SUBNETS} random | worst of these |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            print(measure_seed(seed, Path(folder) / str(seed)), flush=True)


if __name__ == "__main__":
    main()
