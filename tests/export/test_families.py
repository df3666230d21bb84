"""The ONNX writer against PyTorch for every family."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgenas.errors import UsageError
from edgenas.export import build_onnx, check_onnx, random_weights, run_onnx
from edgenas.ofa import Subnet
from edgenas.space import Architecture, MobileNetV3, ProxylessNAS, ResNet50D, SearchSpace

Weights = dict[str, np.ndarray]
Make = Callable[[Architecture, int], Weights]

SPACES: dict[str, SearchSpace] = {
    "mobilenet_v3": MobileNetV3(width=0.35, resolutions=(1, 24, 31, 45), classes=10),
    "proxyless": ProxylessNAS(width=0.35, resolutions=(1, 32, 45, 67), classes=10),
    "resnet50d": ResNet50D(resolutions=(1, 2, 5, 31, 33, 45, 64, 67), classes=10, width_mults=(0.1, 0.15, 0.3)),
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: on a busy machine two threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _assert_same_logits(architecture: Architecture, weights: Weights) -> None:
    """PyTorch and onnxruntime differ by at most 1e-4 of the largest logit or of 1; in truth by far less."""
    size = architecture.resolution
    images = np.random.default_rng(5).standard_normal((2, 3, size, size), dtype=np.float32)
    subnet = Subnet(architecture).eval()
    subnet.load_weights({name: torch.from_numpy(array) for name, array in weights.items()})
    with torch.no_grad():
        expected = subnet(torch.from_numpy(images)).numpy()
    model = build_onnx(architecture, weights)
    check_onnx(model)
    found = run_onnx(model, images)
    assert np.isfinite(expected).all()
    assert np.abs(expected - found).max() <= 1e-4 * max(1.0, float(np.abs(expected).max()))


@every_space
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_file_and_module_give_the_same_logits(space: SearchSpace, lively_weights: Make, seed: int) -> None:
    """A random architecture's file passes the checker and gives the logits of its PyTorch module."""
    (architecture,) = space.decode(space.sample(1, np.random.default_rng(seed)))
    _assert_same_logits(architecture, lively_weights(architecture, seed))


@every_space
def test_file_and_module_agree_at_every_resolution(space: SearchSpace, lively_weights: Make) -> None:
    """Even and odd feature maps, down to a single pixel, are strided and pooled alike."""
    (architecture,) = space.decode(space.sample(1, np.random.default_rng(3)))
    weights = lively_weights(architecture, 0)
    for resolution in space.resolutions:
        _assert_same_logits(architecture.at_resolution(resolution), weights)


@pytest.mark.parametrize("space", [ProxylessNAS(resolutions=(99,)), ResNet50D(resolutions=(99,))])
def test_file_and_module_agree_at_full_width(space: SearchSpace, lively_weights: Make) -> None:
    """So are those of the published widths."""
    _assert_same_logits(space.smallest, lively_weights(space.smallest, 0))


@pytest.mark.parametrize("residual", [False, True])
def test_the_residual_block_of_a_stem_is_exported(residual: bool, lively_weights: Make) -> None:
    """A ResNet's file has the stem's residual convolution and its sum exactly when the network has them."""
    space = SPACES["resnet50d"]
    config = {"d": [2 if residual else 1, 0, 1, 0, 2], "e": [0.35] * 18, "w": [1, 2, 0, 1, 2, 0]}
    _assert_same_logits(space.from_ofa(config, 33), lively_weights(space.from_ofa(config, 33), 1))


@every_space
def test_equal_arguments_give_equal_bytes(space: SearchSpace) -> None:
    """Two exports of one network are the same file."""
    weights = random_weights(space.smallest, seed=2)
    assert build_onnx(space.smallest, weights) == build_onnx(space.smallest, dict(reversed(weights.items())))


@every_space
def test_weights_of_another_architecture_are_refused(space: SearchSpace) -> None:
    """Weights of the largest network do not make the smallest."""
    with pytest.raises(UsageError, match=r"belongs to no part of|must have shape"):
        build_onnx(space.smallest, random_weights(space.largest))
