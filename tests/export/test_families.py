"""The ONNX writer against PyTorch for every family."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgenas.errors import UsageError
from edgenas.export import build_onnx, check_onnx, random_weights, run_onnx
from edgenas.space import Architecture, ProxylessNAS, ResNet50D, SearchSpace

Weights = dict[str, np.ndarray]
Make = Callable[[Architecture, int], Weights]
Torch = Callable[[Architecture, Weights, np.ndarray], np.ndarray]

pytestmark = pytest.mark.usefixtures("one_thread")


def _assert_same_logits(architecture: Architecture, weights: Weights, torch_logits: Torch) -> None:
    """PyTorch and onnxruntime differ by at most 1e-4 of the largest logit or of 1; in truth by far less."""
    size = architecture.resolution
    images = np.random.default_rng(5).standard_normal((2, 3, size, size), dtype=np.float32)
    expected = torch_logits(architecture, weights, images)
    model = build_onnx(architecture, weights)
    check_onnx(model)
    actual = run_onnx(model, images)
    assert np.isfinite(expected).all()
    assert np.abs(expected - actual).max() <= 1e-4 * max(1.0, float(np.abs(expected).max()))


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_file_and_module_give_the_same_logits(
    space: SearchSpace, lively_weights: Make, torch_logits: Torch, seed: int
) -> None:
    """A random architecture's file passes the checker and gives the logits of its PyTorch module."""
    (architecture,) = space.decode(space.sample(1, np.random.default_rng(seed)))
    _assert_same_logits(architecture, lively_weights(architecture, seed), torch_logits)


def test_file_and_module_agree_at_every_resolution(
    space: SearchSpace, lively_weights: Make, torch_logits: Torch
) -> None:
    """Even and odd feature maps, down to a single pixel, are strided and pooled alike."""
    (architecture,) = space.decode(space.sample(1, np.random.default_rng(3)))
    weights = lively_weights(architecture, 0)
    for resolution in space.resolutions:
        _assert_same_logits(architecture.at_resolution(resolution), weights, torch_logits)


@pytest.mark.parametrize("space", [ProxylessNAS(resolutions=(99,)), ResNet50D(resolutions=(99,))])
def test_file_and_module_agree_at_full_width(space: SearchSpace, lively_weights: Make, torch_logits: Torch) -> None:
    """Networks of the published widths have the module's logits too."""
    _assert_same_logits(space.smallest, lively_weights(space.smallest, 0), torch_logits)


@pytest.mark.parametrize("residual", [False, True])
def test_the_residual_block_of_a_stem_is_exported(residual: bool, lively_weights: Make, torch_logits: Torch) -> None:
    """A ResNet's file has the stem's residual convolution and its sum exactly when the network has them."""
    space = ResNet50D(resolutions=(33,), classes=10, width_mults=(0.1, 0.15, 0.3))
    config = {"d": [2 if residual else 1, 0, 1, 0, 2], "e": [0.35] * 18, "w": [1, 2, 0, 1, 2, 0]}
    architecture = space.from_ofa(config, 33)
    _assert_same_logits(architecture, lively_weights(architecture, 1), torch_logits)


def test_equal_arguments_give_equal_bytes(space: SearchSpace) -> None:
    """Two exports of one network are the same file."""
    weights = random_weights(space.smallest, seed=2)
    assert build_onnx(space.smallest, weights) == build_onnx(space.smallest, dict(reversed(weights.items())))


def test_weights_of_another_architecture_are_refused(space: SearchSpace) -> None:
    """Weights of the largest network do not make the smallest."""
    with pytest.raises(UsageError, match=r"belongs to no part of|must have shape"):
        build_onnx(space.smallest, random_weights(space.largest))
