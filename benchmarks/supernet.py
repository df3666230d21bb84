"""Print the test accuracy of a trained supernet's subnets: the smallest, the largest, and 20 random ones.

python -m benchmarks.supernet RUN

Each subnet's batch norm is calibrated on training images, as everywhere.
"""

from __future__ import annotations

import sys

import numpy as np

import edgenas as en
from edgenas.accuracy import Evaluator
from edgenas.data import DataSet
from edgenas.space import SearchSpace


def measure_test_accuracy(space: SearchSpace, data: DataSet, evaluator: Evaluator) -> tuple[float, float, np.ndarray]:
    """Return the test accuracy of the smallest and the largest subnet, and of 20 random ones, always the same."""
    random = space.decode(space.sample_distinct(22, np.random.default_rng(0)))[2:]  # the first two are the extremes
    smallest, largest, *others = (
        evaluator.accuracy(evaluator.calibrated_subnet(each), data.test, each.image_size)
        for each in (space.smallest, space.largest, *random)
    )
    return smallest, largest, np.array(others)


def main() -> None:
    """Print a row for the smallest and the largest subnet, and the mean, least and greatest of the random ones."""
    workspace = en.Run(sys.argv[1]).workspace
    data = workspace.data
    smallest, largest, others = measure_test_accuracy(workspace.space, data, workspace.evaluator)
    print("| images | smallest | largest | 20 random: mean | least | greatest |\n|---|---|---|---|---|---|")
    values = (smallest, largest, others.mean(), others.min(), others.max())
    print(f"| {len(data.test)} test images of {data.name} | {' | '.join(f'{each:.1%}' for each in values)} |")


if __name__ == "__main__":
    main()
