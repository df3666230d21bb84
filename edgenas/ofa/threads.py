"""How many threads torch computes with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def spare_threads() -> int:
    """One thread fewer than there are cores, at least one.

    Torch's threads wait for each other by spinning. When another process takes
    one of their cores, a step takes ten times as long and more; with a core to
    spare it does not.
    """
    return max(1, len(os.sched_getaffinity(0)) - 1)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Compute with this many threads inside, and with as many as before afterwards: sums in another order differ."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
