"""A space whose architectures can all be listed, and made-up costs, that the tests of search share."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from edgenas.costs import CostModel, Genes, Vector
from edgenas.search import Front, Problem
from edgenas.space import MobileNetV3, Stage

NAMES = ("accuracy", "latency_ms", "peak_bytes")


@pytest.fixture(scope="session")
def tiny() -> MobileNetV3:
    """A space of 320 networks."""
    return MobileNetV3(
        width=0.5,
        resolutions=(16, 20, 24, 32),
        classes=10,
        kernel_sizes=(3, 5),
        expand_ratios=(3, 4),
        depths=(1, 2),
        stages=(Stage(16, 2, "relu", True), Stage(24, 1, "hswish", False, depths=(1,))),
        head=(32, 64),
    )


@pytest.fixture(scope="session")
def every(tiny: MobileNetV3) -> Genes:
    """The genes of all its networks, once each."""
    combinations = itertools.product(*(range(radix) for radix in tiny.radices.tolist()))
    genes: Genes = np.unique(tiny.canonical(np.array(list(combinations), dtype=np.int64)), axis=0)
    assert len(genes) == tiny.size
    return genes


@pytest.fixture(scope="session")
def models(tiny: MobileNetV3) -> tuple[CostModel, CostModel, CostModel]:
    """Made-up accuracy that grows with MACs and wobbles, latency from MACs and weights, memory from activations."""
    weights = np.random.default_rng(3).uniform(0, 0.004, len(tiny.genes))

    def accuracy(genes: Genes) -> Vector:
        wobble: Vector = np.sin(np.arange(1, 1 + genes.shape[1]) * (1 + genes)) @ weights
        return 0.8 + 0.02 * np.log(tiny.macs(genes) / 1e5) + wobble

    def latency_ms(genes: Genes) -> Vector:
        return 0.05 + tiny.macs(genes) / 1e6 + tiny.weight_bytes(genes) / 1e6

    return accuracy, latency_ms, tiny.activation_bytes


@pytest.fixture(scope="session")
def problem(tiny: MobileNetV3, models: tuple[CostModel, CostModel, CostModel]) -> Problem:
    """The problem of the three made-up costs."""
    return Problem(tiny, dict(zip(NAMES, models, strict=True)), NAMES)


@pytest.fixture
def make_front(tiny: MobileNetV3, every: Genes) -> Callable[..., Front]:
    """Make a front from rows of (accuracy, latency in ms, bytes)."""

    def make(*rows: tuple[float, float, float]) -> Front:
        accuracy, latency_ms, peak_bytes = np.array(rows, dtype=np.float64).T
        values = {"accuracy": accuracy, "latency_ms": latency_ms, "peak_bytes": peak_bytes}
        return Front(tiny, "localhost", every[: len(rows)], values, tuple(values), 320, "abc")

    return make
