"""How long the costs of a million architectures take, each counted from its parts, per family.

python benchmarks/counting.py
"""

from __future__ import annotations

import time

import numpy as np

import edgenas as en

COUNT = 1_000_000


def main() -> None:
    """Print one row a family: seconds for each cost."""
    costs = ("params", "macs", "weight_bytes", "activation_bytes")
    print("| family | " + " | ".join(f"{cost} s" for cost in costs) + " |")
    print("|---" * (1 + len(costs)) + "|")
    for space in (en.MobileNetV3(), en.ProxylessNAS(), en.ResNet50D()):
        genes = space.sample(COUNT, np.random.default_rng(0))
        space.params(genes[:1])  # the parts are listed once a space
        seconds = []
        for cost in costs:
            began = time.monotonic()
            getattr(space, cost)(genes)
            seconds.append(time.monotonic() - began)
        print(f"| {space.family} | " + " | ".join(f"{each:.2f}" for each in seconds) + " |", flush=True)


if __name__ == "__main__":
    main()
