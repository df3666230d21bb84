"""Graphs of all families against the search space's formulas, at odd resolutions too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenas.export import build_onnx, random_weights
from edgenas.graph import GraphSummary, summarise_model
from edgenas.space import Architecture, MobileNetV3, ProxylessNAS, ResNet50D, SearchSpace, Stage

SPACES: dict[str, SearchSpace] = {
    "mobilenet_v3": MobileNetV3(width=0.35, resolutions=(31, 33), classes=10),
    "proxyless": ProxylessNAS(width=0.35, resolutions=(1, 32, 45, 67), classes=10),
    "own proxyless": ProxylessNAS(
        width=0.5,
        resolutions=(7, 12),
        classes=4,
        stem_stride=1,
        stages=(
            Stage(16, 1, "relu6", True, (1, 2)),
            Stage(200, 2, "hswish", False, (1, 3)),
            Stage(16, 2, "relu", False, (1,)),
        ),
        first=64,
        head=400,
    ),
    "resnet50d": ResNet50D(resolutions=(1, 2, 31, 45, 64, 67), classes=10, width_mults=(0.1, 0.15, 0.3)),
    # Ratios above 1 make the middle of a block wider than its ends.
    "wide resnet50d": ResNet50D(resolutions=(5, 33), classes=4, expand_ratios=(0.5, 1.5), width_mults=(0.05, 0.2)),
}


def _summary(architecture: Architecture) -> GraphSummary:
    return summarise_model(build_onnx(architecture, random_weights(architecture)))


def _assert_space_and_graph_agree(architecture: Architecture) -> None:
    space = architecture.space
    genes, summary = space.encode([architecture]), _summary(architecture)
    assert summary.macs == space.macs(genes)[0]
    assert summary.weight_bytes == space.weight_bytes(genes)[0]
    assert summary.activation_bytes == space.activation_bytes(genes)[0], summary.peak_at
    assert (summary.unsupported, summary.unsized) == ({}, 0)
    assert summary.outputs == {"logits": (1, space.classes)}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1))
def test_space_and_graph_agree_on_every_architecture(space: SearchSpace, seed: int) -> None:
    """MACs, weight bytes and peak activation memory of the file are those that the genes predict."""
    (architecture,) = space.decode(space.sample(1, np.random.default_rng(seed)))
    _assert_space_and_graph_agree(architecture)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_space_and_graph_agree_on_the_extremes(space: SearchSpace) -> None:
    """Space and graph agree on the smallest and the largest architecture at every resolution."""
    for architecture in (space.smallest, space.largest):
        for resolution in space.resolutions:
            _assert_space_and_graph_agree(architecture.at_resolution(resolution))


@pytest.mark.parametrize("space", [ProxylessNAS(resolutions=(225,)), ResNet50D(resolutions=(225,))])
def test_space_and_graph_agree_at_full_size(space: SearchSpace) -> None:
    """The same at the published widths, at one pixel more than the published resolution."""
    _assert_space_and_graph_agree(space.smallest)


def test_a_resnet_has_the_operators_of_its_parts() -> None:
    """The largest ResNet-50D: 3 convolutions in the stem, 18 blocks of 3, 4 projections of which 3 pool first."""
    space = SPACES["resnet50d"]
    assert _summary(space.largest).operators == {
        "Add": 1 + 18,
        "AveragePool": 3,
        "Conv": 3 + 18 * 3 + 4,
        "Flatten": 1,
        "Gemm": 1,
        "GlobalAveragePool": 1,
        "MaxPool": 1,
        "Relu": 3 + 18 * 3,
    }


def test_a_proxyless_network_has_the_operators_of_its_parts() -> None:
    """The smallest ProxylessNAS: stem, first block of 2 convolutions, 11 of 3, feature mix; 6 shortcuts; no gates.

    At width 0.35 the third and fourth stage both have 32 channels: the fourth's
    first block has stride 1 and so a shortcut, beside those of five second blocks.
    """
    assert _summary(SPACES["proxyless"].smallest).operators == {
        "Add": 5 + 1,
        "Clip": 1 + 1 + 11 * 2 + 1,
        "Conv": 1 + 2 + 11 * 3 + 1,
        "Flatten": 1,
        "Gemm": 1,
        "GlobalAveragePool": 1,
    }
