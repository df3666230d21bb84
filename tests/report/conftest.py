"""Fronts that the tests of pictures share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgenas.search import Front
from edgenas.space import MobileNetV3


@pytest.fixture
def make_front() -> Callable[[int], Front]:
    """Make a front of distinct subnets: slower ones are more accurate and need more memory."""

    def make(subnets: int) -> Front:
        space = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
        genes = space.sample_distinct(subnets, np.random.default_rng(0))
        genes = genes[np.argsort(space.macs(genes))]
        rising = np.linspace(0.3, 1, subnets)
        values = {"accuracy": rising**0.05, "latency_ms": rising, "peak_bytes": 1e7 + 1e6 * rising}
        return Front(space, "board-onnxruntime-fp32-1t", genes, values, tuple(values), 1000, "test")

    return make


@pytest.fixture
def front(make_front: Callable[[int], Front]) -> Front:
    """A front of 40 subnets between 0.3 and 1 ms."""
    return make_front(40)
