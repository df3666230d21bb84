"""Print the test accuracy of a trained supernet's subnets: the smallest, the largest, and 20 random ones.

python -m benchmarks.supernet RUN

Each subnet's batch norm is calibrated on training images, as everywhere.
"""

from __future__ import annotations

import sys

import numpy as np

import edgenas as en


def main() -> None:
    """Print a row for the smallest and the largest subnet, and the mean, least and greatest of the random ones."""
    workspace = en.Run(sys.argv[1]).workspace
    space, data, evaluator = workspace.space, workspace.data, workspace.evaluator
    random = space.decode(space.sample_distinct(22, np.random.default_rng(0)))[2:]  # the first two are the extremes
    accuracies = np.array([
        evaluator.accuracy(evaluator.calibrated_subnet(each), data.test, each.image_size)
        for each in (space.smallest, space.largest, *random)
    ])  # fmt: skip
    smallest, largest, others = accuracies[0], accuracies[1], accuracies[2:]
    print("| images | smallest | largest | 20 random: mean | least | greatest |\n|---|---|---|---|---|---|")
    values = (smallest, largest, others.mean(), others.min(), others.max())
    print(f"| {len(data.test)} test images of {data.name} | {' | '.join(f'{each:.1%}' for each in values)} |")


if __name__ == "__main__":
    main()
