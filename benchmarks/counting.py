"""Time the costs of a million architectures per family, counted and predicted by a random table.

python benchmarks/counting.py
"""

from __future__ import annotations

import time

import numpy as np

import edgenas as en
from edgenas.profilers.latency.curve import CURVE_KNOTS, Curve
from edgenas.profilers.latency.memory import MemoryModel
from edgenas.space import SearchSpace

COUNT = 1_000_000


def made_up(space: SearchSpace) -> en.LatencyTable:
    """Return a latency table of the form that a profile gives, with random costs."""
    rng = np.random.default_rng(0)
    costs, logs = rng.random(len(space.distinct_parts)), 0.01 * rng.standard_normal(CURVE_KNOTS)
    curve, memory = Curve(np.linspace(0, 8, CURVE_KNOTS), logs), MemoryModel.with_unit_costs(space)
    return en.LatencyTable(space, "made-up", 0.1, costs, memory, None, "", curve=curve)


def main() -> None:
    """Print one row per family: seconds for each cost."""
    names = ("params", "macs", "weight_bytes", "activation_bytes", "latency_ms", "peak_bytes")
    print("| family | " + " | ".join(f"{name} s" for name in names) + " |")
    print("|---" * (1 + len(names)) + "|")
    for space in (en.MobileNetV3(), en.ProxylessNAS(), en.ResNet50D()):
        genes, table = space.sample(COUNT, np.random.default_rng(0)), made_up(space)
        seconds = []
        for name in names:
            cost = getattr(table if name in ("latency_ms", "peak_bytes") else space, name)
            cost(genes[:1])  # the parts are listed once a space
            began = time.monotonic()
            cost(genes)
            seconds.append(time.monotonic() - began)
        print(f"| {space.family} | " + " | ".join(f"{each:.2f}" for each in seconds) + " |", flush=True)


if __name__ == "__main__":
    main()
