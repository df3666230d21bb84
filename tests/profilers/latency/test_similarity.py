"""Features of parts, and how alike two parts are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgenas.profilers.latency.features import part_features, plain_features
from edgenas.profilers.latency.similarity import part_similarities
from edgenas.space import MobileNetV3, ProxylessNAS, ResNet50D, SearchSpace
from edgenas.space.blocks.inverted_residual import InvertedResidual

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


def test_the_same_block_at_another_resolution_is_alike() -> None:
    """Blocks that differ in the resolution alone are similar, and more so when nearer."""
    others = [dataclasses.replace(_BLOCK, in_shape=(40, size, size)) for size in (24, 14)]
    different = dataclasses.replace(_BLOCK, kernel=3)
    first = part_similarities([_BLOCK, *others, different])["other resolutions"][0]
    assert first[0] == 1 > first[1] > first[2] > 0
    # One octave from 28 to 14 is twice the length of 0.5: exp(-2)
    assert first[2] == pytest.approx(np.exp(-2))
    assert first[3] == 0
