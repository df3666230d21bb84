"""A block that edgenas does not have is one class: everything else works with it.

The block is the universal inverted bottleneck of MobileNetV4 (arXiv 2404.10518). Its space has non-square inputs of
one channel, as keyword spotting has: moments by bands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from edgenas.costs import Genes
from edgenas.errors import SpaceError
from edgenas.export import build_onnx, run_onnx
from edgenas.ofa import Supernet
from edgenas.space import Architecture, Gene, SearchSpace, Slot
from edgenas.space import parts as costs
from edgenas.space.blocks.plain import GlobalPoolPart, LinearPart
from edgenas.space.layers import GraphBuilder
from edgenas.space.parts import Part

BANDS = 10


@dataclass(frozen=True)
class UniversalInvertedBottleneck(Part):
    """A 1x1 expansion and projection with a depthwise convolution before, between, both or neither."""

    operator: ClassVar[str] = "uib"
    label: ClassVar[str] = "universal inverted bottleneck"

    out_channels: int
    start: int = 0  # kernel of the depthwise convolution before the expansion; 0 for none
    middle: int = 0  # kernel of the one after it
    mid_channels: int = 0

    def build(self, b: GraphBuilder) -> None:
        y, eps = 0, 1e-5
        if self.start:
            y = b.depthwise("start", y, self.start, bn_eps=eps, transform="start_transform")
        y = b.conv_bn("expand", y, self.mid_channels, activation="relu", bn_eps=eps)
        if self.middle:
            y = b.depthwise("middle", y, self.middle, bn_eps=eps, activation="relu", transform="middle_transform")
        y = b.conv_bn("project", y, self.out_channels, bn_eps=eps)
        if self.in_channels == self.out_channels:
            b.add("add", y, 0)


@dataclass(frozen=True, repr=False)
class Spectrograms(SearchSpace):
    """Two of these blocks over inputs of one channel, elastic in both kernels and the inner channels."""

    family: ClassVar[str] = "spectrograms"

    resolutions: tuple[int, ...] = (9, 12)
    classes: int = 5

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        choices = {"start": (0, 3), "middle": (0, 3, 5), "mid": (8, 24)}
        blocks = (Gene(f"stage1.block{n}.{name}", values) for n in (1, 2) for name, values in choices.items())
        return (Gene("resolution", self.resolutions), *blocks)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        blocks = []
        for number, entry in ((1, 1), (2, 16)):
            columns = (0, *range(3 * number - 2, 3 * number + 1))
            choices = product(*(self.genes[column].values for column in columns))
            parts = (
                UniversalInvertedBottleneck((entry, int(size), BANDS), 16, int(start), int(middle), int(mid))
                for size, start, middle, mid in choices
            )
            blocks.append(Slot(f"stage1.block{number}", columns, tuple(parts)))
        pool = tuple(GlobalPoolPart((16, size, BANDS)) for size in self.resolutions)
        linear = LinearPart((16, 1, 1), self.classes)
        return (*blocks, Slot("pool", (0,), pool), Slot("classifier", (), (linear,)))

    @property
    def size(self) -> int:
        return int(np.prod(self.radices))

    def dead_genes(self, genes: Genes) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return np.zeros(genes.shape, dtype=bool)

    def describe(self, architecture: Architecture) -> dict[str, Any]:
        return dict(self._gene_values(architecture))

    def from_description(self, data: Mapping[str, Any], where: str) -> Architecture:
        return self._from_gene_values(data, where)


SPACE = Spectrograms()


def test_costs_by_hand() -> None:
    """Weights, parameters, MACs and peak activations follow from the layers."""
    part = UniversalInvertedBottleneck((16, 7, BANDS), 16, start=3, middle=5, mid_channels=64)
    weights = 16 * 9 + 16 * 64 + 64 * 25 + 64 * 16
    assert costs.macs(part) == 7 * BANDS * weights
    assert costs.params(part) == weights + 2 * (16 + 64 + 64 + 16)
    assert costs.weight_bytes(part) == 4 * (weights + 16 + 64 + 64 + 16)
    # While the middle convolution runs: the input, which is added at the end, and the two wide maps.
    assert costs.activation_bytes(part) == 4 * 7 * BANDS * (16 + 64 + 64)


def test_key_and_words_name_every_size() -> None:
    """The key of a latency table is made of the block's fields."""
    part = UniversalInvertedBottleneck((16, 7, BANDS), 24, start=0, middle=5, mid_channels=64)
    assert part.key == "uib-in7x10x16-out7x10x24-start0-middle5-mid64"
    assert part.what == "universal inverted bottleneck, 64 inside"
    assert len({part.key for part in SPACE.distinct_parts}) == 2 * (2 * 2 * 3 * 2 + 1) + 1


def test_shapes_of_layers_are_those_of_the_parts() -> None:
    """Each part begins with the shape in which the one before ends."""
    for architecture in SPACE.decode(SPACE.sample_distinct(8, np.random.default_rng(1))):
        parts = list(architecture.parts.values())
        assert parts[0].in_shape == (1, architecture.resolution, BANDS)
        assert [part.in_shape for part in parts[1:]] == [part.out_shape for part in parts[:-1]]


@dataclass(frozen=True)
class _Narrowing(Part):
    """A convolution to a share of the channels."""

    operator: ClassVar[str] = "narrowing"
    label: ClassVar[str] = "narrowing"

    ratio: float = 0.5
    empty: bool = False

    def build(self, b: GraphBuilder) -> None:
        if not self.empty:
            b.conv("conv", 0, round(self.ratio * self.in_channels))


def test_every_number_of_a_block_is_in_its_key() -> None:
    """Blocks that differ in a fraction alone are two parts."""
    halved, kept = _Narrowing((16, 4, 4), 0.5), _Narrowing((16, 4, 4), 1.0)
    assert (halved.key, kept.key) == ("narrowing-in4x4x16-out4x4x8-ratio0.5", "narrowing-in4x4x16-out4x4x16-ratio1.0")


def test_a_block_without_layers_is_refused() -> None:
    """It has no output; the message names the block."""
    with pytest.raises(SpaceError, match="block _Narrowing: build must add at least one layer"):
        _ = _Narrowing((16, 4, 4), empty=True).out_shape


def _lively_supernet() -> Supernet:
    """Return a supernet in eval mode in which every batch norm and kernel matrix does something."""
    supernet, generator = Supernet(SPACE), torch.Generator().manual_seed(1)
    for name, tensor in supernet.state_dict().items():
        noise = torch.rand(tensor.shape, generator=generator)
        if ".bn." in name:
            tensor.copy_(noise + (0.5 if name.endswith(("weight", "running_var")) else -0.5))
        elif name.endswith("_matrix"):
            tensor += 0.2 * (noise - 0.5)
    return supernet.eval()


def _plain_block(weights: dict[str, Tensor], part: UniversalInvertedBottleneck, x: Tensor) -> Tensor:
    """Return the output of a block by PyTorch's functions."""

    def conv_bn(name: str, y: Tensor, groups: int = 1) -> Tensor:
        mean, var, scale, shift = (
            weights[f"{name}.bn.{tensor}"] for tensor in ("running_mean", "running_var", "weight", "bias")
        )
        kernel = weights[f"{name}.conv.weight"]
        y = functional.conv2d(y, kernel, None, 1, kernel.shape[-1] // 2, 1, groups)
        return functional.batch_norm(y, mean, var, scale, shift)

    y = conv_bn("start", x, x.shape[1]) if part.start else x
    y = conv_bn("expand", y).relu()
    y = conv_bn("middle", y, part.mid_channels).relu() if part.middle else y
    y = conv_bn("project", y)
    return y + x if x.shape == y.shape else y


def test_supernet_subnet_and_file_agree() -> None:
    """The supernet, an extracted subnet, PyTorch's functions and onnxruntime give the same logits."""
    supernet = _lively_supernet()
    for architecture in SPACE.decode(SPACE.sample_distinct(8, np.random.default_rng(0))):
        size = architecture.resolution
        x = torch.randn(1, 1, size, BANDS, generator=torch.Generator().manual_seed(0))
        subnet = supernet.extract(architecture)
        blocks = [part for part in architecture.parts.values() if isinstance(part, UniversalInvertedBottleneck)]
        with torch.no_grad():
            logits = subnet(x)
            torch.testing.assert_close(supernet(x, architecture), logits, rtol=1e-5, atol=1e-5)
            y = x
            for number, part in enumerate(blocks, 1):
                block = subnet.get_submodule(f"stage1.block{number}").state_dict()
                y = _plain_block(dict(block), part, y)
            y = subnet.get_submodule("classifier.linear")(y.mean((2, 3)))
        torch.testing.assert_close(y, logits, rtol=1e-5, atol=1e-5)
        exported = run_onnx(build_onnx(architecture, subnet.weights()), x.numpy())
        np.testing.assert_allclose(exported, logits.numpy(), rtol=1e-4, atol=1e-4)


def test_a_step_of_training_reaches_the_active_weights_only() -> None:
    """The loss of the smallest network gives its layers gradients, and none to those that it does not have."""
    supernet = Supernet(SPACE).train()
    supernet(torch.randn(4, 1, 9, BANDS), SPACE.smallest).square().mean().backward()
    trained = {name for name, parameter in supernet.named_parameters() if parameter.grad is not None}
    assert "stage1.block2.expand.conv.weight" in trained
    assert not [name for name in trained if "start" in name or "middle" in name]


def test_a_space_without_once_for_all_lists_says_so() -> None:
    """Only families that the authors published have lists."""
    with pytest.raises(SpaceError, match="family spectrograms has no Once-for-All lists"):
        SPACE.smallest.to_ofa()
    with pytest.raises(SpaceError, match="family spectrograms has no Once-for-All lists"):
        SPACE.from_ofa({}, 9)
