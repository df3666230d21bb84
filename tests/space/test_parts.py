"""Costs of parts computed by hand, and costs of whole networks as sums over parts."""

import itertools

import numpy as np
import pytest

from edgenas.space import Architecture, MobileNetV3, Part, SearchSpace, Stage
from edgenas.space import parts as costs
from edgenas.space.blocks.inverted_residual import InvertedResidual
from edgenas.space.blocks.plain import ConvPart, GlobalPoolPart, LinearPart

CONV = ConvPart((3, 8, 8), 16, kernel=3, stride=2, activation="hswish")
MBCONV = InvertedResidual(
    in_shape=(8, 10, 10),
    out_channels=16,
    kernel=5,
    stride=2,
    activation="relu",
    mid_channels=24,
    se_channels=8,
    expand=True,
)
SHORTCUT = InvertedResidual((8, 6, 6), 8, kernel=3, activation="hswish", mid_channels=32, expand=True, shortcut=True)


def test_conv_by_hand() -> None:
    """A 3x3 convolution from 8x8x3 to 4x4x16."""
    assert costs.macs(CONV) == 4 * 4 * 16 * 3 * 9
    assert costs.params(CONV) == 16 * 3 * 9 + 2 * 16
    assert costs.weight_bytes(CONV) == 4 * (16 * 3 * 9 + 16)
    assert costs.activation_bytes(CONV) == 4 * (8 * 8 * 3 + 4 * 4 * 16)


def test_mbconv_by_hand() -> None:
    """A block with squeeze-excite and stride: expansion, 5x5 depthwise, gate, projection."""
    assert costs.macs(MBCONV) == 100 * 8 * 24 + 25 * 24 * 25 + 2 * 24 * 8 + 25 * 24 * 16
    convolutions = 8 * 24 + 24 * 25 + 24 * 16
    gate = (24 * 8 + 8) + (8 * 24 + 24)
    assert costs.params(MBCONV) == convolutions + gate + 2 * (24 + 24 + 16)
    assert costs.weight_bytes(MBCONV) == 4 * (convolutions + gate + (24 + 24 + 16))
    # Most is alive while the expansion runs (800 + 2400) or the depthwise (2400 + 600).
    assert costs.activation_bytes(MBCONV) == 4 * (100 * 8 + 100 * 24)


def test_shortcut_keeps_the_input_alive() -> None:
    """With a shortcut the input lives beside the depthwise convolution's input and output."""
    assert costs.activation_bytes(SHORTCUT) == 4 * 36 * (8 + 32 + 32)


def test_block_without_expansion_by_hand() -> None:
    """The fixed first block has no expansion: its depthwise convolution reads the block's input."""
    part = InvertedResidual((8, 6, 6), 8, kernel=3, activation="relu", mid_channels=8, shortcut=True)
    assert costs.macs(part) == 36 * 8 * 9 + 36 * 8 * 8
    assert costs.params(part) == 8 * 9 + 8 * 8 + 2 * (8 + 8)
    # Input kept, filtered map, projected map.
    assert costs.activation_bytes(part) == 4 * 36 * (8 + 8 + 8)


def test_linear_and_pool_by_hand() -> None:
    """The classifier has a bias; pooling has neither weights nor multiplications."""
    linear, pool = LinearPart((32, 1, 1), 10), GlobalPoolPart((32, 7, 7))
    assert (costs.macs(linear), costs.params(linear), costs.weight_bytes(linear)) == (320, 330, 1320)
    assert (costs.macs(pool), costs.params(pool), costs.weight_bytes(pool)) == (0, 0, 0)
    assert costs.activation_bytes(pool) == 4 * (49 * 32 + 32)


def every_part() -> list[Part]:
    """All parts of a few spaces, one of which has parts that differ little."""
    last = Stage(16, 2, "hswish", False)
    alike = MobileNetV3(width=1, resolutions=(1, 2), stages=(last,), head=(16, 16), depths=(1, 2))
    found = [MobileNetV3(width=0.35, resolutions=(24, 32)), alike]
    return [part for space in found for slot in space.slots for part in slot.parts if part is not None]


def test_equal_keys_mean_equal_parts() -> None:
    """A key names one part only: parts with the same key have the same weights and costs."""
    parts = every_part()
    assert len({part.key for part in parts}) == len(set(parts))


def test_key_is_readable() -> None:
    """A key describes its part."""
    assert MBCONV.key == "mbconv-in10x10x8-out5x5x16-k5-s2-relu-mid24-se8-expand"


def every_space() -> list[SearchSpace]:
    alike = MobileNetV3(width=1, resolutions=(1, 2), stages=(Stage(16, 2, "relu", True),), head=(16, 16), depths=(1, 2))
    return [MobileNetV3(), MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10), alike]


@pytest.mark.parametrize("space", every_space())
@pytest.mark.parametrize("cost", ["params", "macs", "weight_bytes"])
def test_costs_of_a_matrix_are_sums_over_parts(space: SearchSpace, cost: str) -> None:
    """A vector of costs equals adding up each architecture's parts one by one."""
    genes = space.sample(50, np.random.default_rng(3))
    one_by_one = [sum(map(getattr(costs, cost), arch.parts.values())) for arch in space.decode(genes)]
    assert getattr(space, cost)(genes).tolist() == one_by_one


@pytest.mark.parametrize("space", every_space())
def test_peak_of_a_matrix_is_the_largest_part(space: SearchSpace) -> None:
    """The peak activation memory is the largest of all parts."""
    genes = space.sample(50, np.random.default_rng(3))
    one_by_one = [max(map(costs.activation_bytes, arch.parts.values())) for arch in space.decode(genes)]
    assert space.activation_bytes(genes).tolist() == one_by_one


def test_empty_matrix_costs_nothing(digits: MobileNetV3) -> None:
    """An empty genes matrix gives an empty vector of costs."""
    empty = digits.encode([])
    assert digits.params(empty).shape == digits.activation_bytes(empty).shape == (0,)


def test_parts_fit_together(digits: MobileNetV3) -> None:
    """Each part's input has the shape of the previous part's output, from the image to the classes."""
    for architecture in digits.decode(digits.sample(30, np.random.default_rng(1))):
        chain = list(architecture.parts.values())
        assert chain[0].in_shape == (3, architecture.resolution, architecture.resolution)
        assert chain[-1].out_shape == (10, 1, 1)
        for before, after in itertools.pairwise(chain):
            assert before.out_shape == after.in_shape


def test_skipped_blocks_have_no_parts(digits: MobileNetV3) -> None:
    """The smallest architecture has two blocks in each of five stages, the largest four."""
    for architecture, blocks in ((digits.smallest, 10), (digits.largest, 20)):
        assert isinstance(architecture, Architecture)
        assert len([name for name in architecture.parts if name.startswith("stage")]) == blocks
