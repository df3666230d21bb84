"""The number of threads that torch computes with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def cores_but_one() -> int:
    """Return the number of available cores minus one, at least one.

    Torch's threads wait for each other by spinning. When another process takes
    one of their cores, a step takes more than ten times as long. One spare core
    avoids that.
    """
    return max(1, len(os.sched_getaffinity(0)) - 1)


def count_torch_threads() -> int:
    """Return the number of threads that torch computes with now."""
    return torch.get_num_threads()


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Set torch's number of threads within the context, and restore it afterwards.

    The number decides the order of sums, and so the bits of results.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
