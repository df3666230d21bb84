"""Features and similarities of parts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgenas.profilers.latency.features import part_features, part_similarities, plain_features
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


def test_blocks_of_equal_channels_inside_are_alike() -> None:
    """At any size and kernel, blocks of one kind share a deviation where their first layer makes equal channels."""
    smaller = dataclasses.replace(_BLOCK, in_shape=(40, 14, 14), kernel=3)
    wider = dataclasses.replace(_BLOCK, mid_channels=160)
    conv = ConvPart((40, 28, 28), 120)
    similarity = part_similarities([_BLOCK, smaller, wider, conv])
    assert similarity["channels"][0].tolist() == [1, 1, 0, 0]
    assert similarity["own"].tolist() == np.eye(4).tolist()


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
