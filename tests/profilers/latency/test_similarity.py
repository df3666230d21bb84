"""Features of parts, and how alike two parts are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgenas.profilers.latency.features import part_features, plain_features
from edgenas.profilers.latency.similarity import part_similarities
from edgenas.space import MobileNetV3, ProxylessNAS, ResNet50D, SearchSpace
from edgenas.space.blocks.inverted_residual import InvertedResidual
from edgenas.space.blocks.plain import ConvPart, GlobalPoolPart

_BLOCK = InvertedResidual((40, 28, 28), 40, 5, activation="relu", mid_channels=120, se_channels=32, expand=True)


@pytest.mark.parametrize("space", [MobileNetV3(), ProxylessNAS(), ResNet50D()])
def test_every_operator_of_every_family_has_features(space: SearchSpace) -> None:
    """Otherwise a family could be measured for minutes and then not be fitted."""
    features = part_features(space.distinct_parts)
    assert (features >= 0).all()
    assert (features.sum(axis=1) > 0).all()


def test_plain_features_by_hand() -> None:
    """One call; MACs of 1x1, depthwise, gate and 1x1; values of the maps and of the gate's vectors, each once."""
    work = 28**2 * (40 * 120 + 120 * 25 + 120 * 40) + 2 * 120 * 32
    traffic = 28**2 * (40 + 120 + 120 + 40) + 120 + 32 + 120
    assert plain_features([_BLOCK]).tolist() == [[1, work, traffic]]


@pytest.mark.parametrize("space", [MobileNetV3(resolutions=(128, 224)), ProxylessNAS(resolutions=(128, 224))])
def test_similarities_are_covariances(space: SearchSpace) -> None:
    """Each is symmetric, has ones on its diagonal and no negative eigenvalue."""
    for name, similarity in part_similarities(space.distinct_parts).items():
        assert np.array_equal(similarity, similarity.T), name
        assert np.array_equal(np.diag(similarity), np.ones(len(similarity))), name
        assert np.linalg.eigvalsh(similarity).min() > -1e-9, name


def test_parts_of_equal_layers_are_alike_by_their_sizes() -> None:
    """A similarity of exp(-d^2 / 2), where d is the distance in octaves over all sizes."""
    half = dataclasses.replace(_BLOCK, in_shape=(40, 14, 14))
    small = dataclasses.replace(_BLOCK, kernel=3)
    without_gate = dataclasses.replace(_BLOCK, se_channels=0)
    strided = dataclasses.replace(_BLOCK, stride=2)
    shape = part_similarities([_BLOCK, half, small, without_gate, strided])["shape"][0]
    # One octave of the side; the depthwise kernel's height and width, and nothing else, are 3 instead of 5.
    assert shape[:3] == pytest.approx([1, np.exp(-1 / 2), np.exp(-(np.log2(5 / 3) ** 2))])
    assert shape[3:].tolist() == [0, 0]


def test_features_of_a_block_by_hand() -> None:
    """Calls, work, traffic and weights of each kind of layer; what is folded or fused away has none."""
    pool = GlobalPoolPart((32, 7, 7))
    conv = ConvPart((3, 8, 8), 16, 3, 2, "relu")
    # Conv 3x3: calls, traffic, weights, work; GlobalPool: calls, traffic; relu: calls, traffic. Sorted by name.
    features = part_features([pool, conv])
    columns = features[:, features.any(axis=0)]
    assert columns.tolist() == [
        [0, 0, 0, 0, 1, 32 * 49 + 32, 0, 0],
        [1, 3 * 64 + 16 * 16, 16 * 27, 16 * 27 * 16, 0, 0, 1, 2 * 16 * 16],
    ]
