"""Channel sorting: the output stays, the most important channels come first, within the bands that were trained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from edgenas.ofa import Phase, Supernet, to_channels_last
from edgenas.ofa.channel_sorting import sort_channels
from edgenas.space import MobileNetV3, ProxylessNAS, ResNet50D, SearchSpace

Lively = Callable[[SearchSpace], Supernet]
SPACES = {
    "mobilenet_v3": MobileNetV3(width=0.35, resolutions=(32,), classes=10),
    "proxyless": ProxylessNAS(width=0.35, resolutions=(32,), classes=10),
    "resnet50d": ResNet50D(resolutions=(32,), classes=10, width_mults=(0.1, 0.25)),
}
_CLOSED = Phase("full", 1, 0.1, 3, 3, distill=False)


@pytest.mark.parametrize("name", sorted(SPACES))
def test_the_largest_network_computes_the_same(name: str, lively: Lively) -> None:
    """Within 1e-5 of its logits, while most weights have moved."""
    space = SPACES[name]
    supernet = lively(space)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = supernet(x, space.largest)
    weights = {name: value.clone() for name, value in supernet.state_dict().items()}
    sort_channels(supernet, _CLOSED.open_parts(space))
    with torch.inference_mode():
        torch.testing.assert_close(supernet(x, space.largest), before, rtol=1e-5, atol=1e-5)
    moved = [name for name, value in supernet.state_dict().items() if not torch.equal(value, weights[name])]
    assert len(moved) > len(weights) / 3


def test_the_most_important_channels_come_first(lively: Lively) -> None:
    """By the L1 norm of the columns of the projection, and of squeeze-excite's second layer."""
    space = SPACES["mobilenet_v3"]
    supernet = lively(space)
    sort_channels(supernet, _CLOSED.open_parts(space))
    state = supernet.state_dict()
    for layer in ("project.conv", "se.expand"):
        columns = state[f"stage2.block2.{layer}.weight"].abs().sum((0, 2, 3))
        assert (columns.diff() <= 0).all()


def test_channels_stay_within_the_bands_that_were_trained(lively: Lively) -> None:
    """With expand ratios 4 and 6 open, the first 4/6 of the channels stay first, sorted, and so do the others."""
    space = SPACES["mobilenet_v3"]
    supernet = lively(space)
    name = "stage1.block2.project.conv.weight"
    before = supernet.state_dict()[name].abs().sum((0, 2, 3))
    opened = Phase("expand 1", 1, 0.1, 3, 3, 2).open_parts(space)
    sort_channels(supernet, opened)
    after = supernet.state_dict()[name].abs().sum((0, 2, 3))
    (inner, outer) = sorted({part.graph.layers[0].shape[0] for part in opened["stage1.block2"]})
    for band in (slice(0, inner), slice(inner, outer)):
        torch.testing.assert_close(after[band], before[band].sort(descending=True).values)


@pytest.mark.parametrize("name", sorted(SPACES))
def test_the_order_does_not_depend_on_the_layout_of_the_weights(name: str, lively: Lively) -> None:
    """A training that goes on from a file, whose weights are contiguous, sorts as one that was not interrupted."""
    space = SPACES[name]
    contiguous, channels_last = lively(space), lively(space)
    to_channels_last(channels_last)
    for supernet in (contiguous, channels_last):
        sort_channels(supernet, _CLOSED.open_parts(space))
    for tensor, other in zip(contiguous.state_dict().values(), channels_last.state_dict().values(), strict=True):
        assert torch.equal(tensor, other)


def test_a_smaller_network_keeps_more_of_the_output(lively: Lively) -> None:
    """The smallest expand ratio differs less from the largest network after sorting than before: its use."""
    space = MobileNetV3(width=0.5, resolutions=(32,), classes=10, depths=(2,), kernel_sizes=(3,))
    supernet = lively(space)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, weight in supernet.named_parameters():
            if name.endswith("project.conv.weight"):  # a tenth of the channels carries most, wherever they are
                scale = torch.from_numpy(np.where(rng.random(weight.shape[1]) < 0.3, 1.0, 0.01)).float()
                weight.mul_(scale[None, :, None, None])
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def loss() -> float:
        with torch.inference_mode():
            return float((supernet(x, space.smallest) - supernet(x, space.largest)).abs().mean())

    before = loss()
    sort_channels(supernet, Phase("full", 1, 0.1, distill=False).open_parts(space))
    assert loss() < 0.5 * before
