"""The ResNet-50D space: published widths and counts, choices that round to equal channels, Once-for-All's lists."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.costs import Genes
from edgenas.errors import SpaceError, UsageError
from edgenas.space import Architecture, Part, ResNet50D
from edgenas.space import parts as costs
from edgenas.space.blocks.bottleneck import Bottleneck

THIN = ResNet50D(resolutions=(64, 65), classes=10, width_mults=(0.1, 0.25, 0.5))
BLOCKS = 18  # 2, 2, 4 and 2, and two more in each stage


def lists(**change: Any) -> dict[str, Any]:
    """The smallest network in Once-for-All's form, with some lists changed."""
    return {"d": [0] * 5, "e": [0.2] * BLOCKS, "w": [0] * 6, **change}


def values(space: ResNet50D, name: str) -> tuple[float, ...]:
    return next(gene.values for gene in space.genes if gene.name == name)


# -- published figures -----------------------------------------------------------------------


def test_channels_of_the_published_widths() -> None:
    """Multipliers 0.65, 0.8 and 1.0 of 64 and 256 to 2048; the stem's middle rounds alike for the first two."""
    space = ResNet50D()
    assert values(space, "stem.width") == (40, 48, 64)
    # Half of 40 is 20, which rounds to 24, as is half of 48.
    assert values(space, "stem.mid.width") == (24, 32)
    assert [values(space, f"stage{number}.width") for number in range(1, 5)] == [
        (168, 208, 256),
        (336, 408, 512),
        (664, 816, 1024),
        (1328, 1640, 2048),
    ]


def bottlenecks(architecture: Architecture) -> dict[str, Bottleneck]:
    """The bottleneck blocks by place."""
    return {name: part for name, part in architecture.parts.items() if isinstance(part, Bottleneck)}


def test_middle_channels_by_hand() -> None:
    """The ratio times the block's output, rounded first to a whole number, then to eight."""
    subnets = [ResNet50D().from_ofa(lists(e=[ratio] * BLOCKS, w=[1] * 6), 224) for ratio in (0.2, 0.25, 0.35)]
    # 208 * 0.2 = 41.6, 208 * 0.25 = 52 and 208 * 0.35 = 72.8; 1640 gives 328, 410 and 574.
    assert [bottlenecks(each)["stage1.block1"].mid_channels for each in subnets] == [40, 56, 72]
    assert [bottlenecks(each)["stage4.block1"].mid_channels for each in subnets] == [328, 408, 576]


def test_middle_channels_are_whole_before_they_are_multiples_of_eight() -> None:
    """216 channels at ratio 0.35 are 75.6, hence 76, halfway from 72 to 80: 80; unrounded they would be 72."""
    space = ResNet50D(resolutions=(32,), depths=(0,), expand_ratios=(0.35,), width_mults=(0.84375,))
    part = bottlenecks(space.smallest)["stage1.block1"]
    assert (part.out_channels, part.mid_channels) == (216, 80)


def test_counts_of_resnet50d() -> None:
    """With 3, 4, 6 and 3 blocks, ratio 0.25 and full width the space has ResNet-50-D itself.

    ResNet-50 has 25,557,032 parameters and 4,089,184,256 MACs at 224 pixels.
    Three convolutions replace its 7x7 stem; pooling before the shortcut's 1x1
    convolution costs no more than striding in it.
    """
    space = ResNet50D(resolutions=(224,))
    architecture = space.from_ofa(lists(d=[2, 1, 2, 2, 1], e=[0.25] * BLOCKS, w=[2] * 6), 224)
    old, new = 3 * 64 * 49, 3 * 32 * 9 + 32 * 32 * 9 + 32 * 64 * 9
    genes = space.encode([architecture])
    assert space.params(genes).tolist() == [25_557_032 - (old + 2 * 64) + new + 2 * (32 + 32 + 64)]
    assert space.macs(genes).tolist() == [4_089_184_256 + 112**2 * (new - old)]


def test_counts_of_the_reference_implementation(data_folder: Path) -> None:
    """Parameters and MACs of a thin space equal what the authors' code counts."""
    reference = json.loads((data_folder / "ofa" / "reference" / "resnet_small.json").read_text())
    cases, given = reference["cases"], reference["args"]
    space = ResNet50D(
        resolutions=tuple({case["resolution"] for case in cases}),
        classes=given["n_classes"],
        depths=tuple(given["depth_list"]),
        expand_ratios=tuple(given["expand_ratio_list"]),
        width_mults=tuple(given["width_mult_list"]),
    )
    genes = space.encode([space.from_ofa(case["config"], case["resolution"]) for case in cases])
    assert space.params(genes).tolist() == [case["params"] for case in cases]
    assert space.macs(genes).tolist() == [case["macs"] for case in cases]


def test_structure_of_the_published_network() -> None:
    """Strides 1 2 2 2, a projection in the first block of a stage only, 4 to 18 blocks, ReLU."""
    space = ResNet50D()
    for architecture, depths in ((space.smallest, (2, 2, 4, 2)), (space.largest, (4, 4, 6, 4))):
        blocks = bottlenecks(architecture)
        stages = range(1, 5)
        assert tuple(sum(name.startswith(f"stage{stage}.") for name in blocks) for stage in stages) == depths
        assert [blocks[f"stage{stage}.block1"].stride for stage in stages] == [1, 2, 2, 2]
        assert {part.stride for name, part in blocks.items() if not name.endswith("block1")} == {1}
        assert {name for name, part in blocks.items() if part.projected} == {f"stage{n}.block1" for n in stages}
        assert {(part.activation, part.shortcut, part.kernel) for part in blocks.values()} == {("relu", True, 3)}


def test_sizes_of_feature_maps_at_an_odd_resolution() -> None:
    """Stem and max-pooling halve and round up, then all stages but the first: 65, 33, 17, 17, 9, 5, 3."""
    parts = THIN.largest.at_resolution(65).parts
    names = ["stem.conv1", "stem.residual", "stem.conv2", "stem.pool", *(f"stage{n}.block2" for n in range(1, 5))]
    assert [parts[name].out_shape[1] for name in names] == [33, 33, 33, 17, 17, 9, 5, 3]


# -- equal networks ----------------------------------------------------------------------------


def every_row(space: ResNet50D) -> Genes:
    """All genes rows, whether canonical or not."""
    axes = np.meshgrid(*(np.arange(len(gene.values)) for gene in space.genes), indexing="ij")
    return np.stack([axis.ravel() for axis in axes], axis=1).astype(np.int64)


def networks(space: ResNet50D, genes: Genes) -> set[bytes]:
    """The different networks: which part stands at each place."""
    places = np.stack(list(space.part_indices(genes)), axis=1).astype(np.int16)
    return {row.tobytes() for row in places}


def test_size_equals_the_number_of_different_parts() -> None:
    """Two depths and two widths at a fixed ratio: all 2,048 rows made into architectures."""
    space = ResNet50D(resolutions=(32,), depths=(0, 1), expand_ratios=(0.25,), width_mults=(0.1, 0.5))
    found: dict[tuple[Any, ...], Architecture] = {}
    for row in itertools.product(*(range(len(gene.values)) for gene in space.genes)):
        architecture = Architecture(space, row)
        assert found.setdefault(tuple(architecture.parts.items()), architecture) == architecture
    # stem's residual, its middle (8 or 16), its width (8 or 32), and depth and width of four stages
    assert space.size == len(found) == 2 * 2 * 2 * 4**4
    assert len({architecture.id for architecture in found.values()}) == len(found)


@pytest.mark.parametrize(
    ("space", "size"),
    [
        # The stem has 8 channels either way. The stages have 8 or 24, 16 or 48, 32 or 104, 64 or 208, for which the
        # two ratios give 8 and 8 or 8 and 8, 8 and 8 or 16 and 16, 8 and 16 or 24 and 40, 16 and 24 or 40 and 72.
        (
            ResNet50D(resolutions=(8,), depths=(0,), expand_ratios=(0.2, 0.35), width_mults=(0.03, 0.1)),
            (1 + 1) * (1 + 1) * (2**4 + 2**4) * (2**2 + 2**2),
        ),
        # One narrow width, base depths and one block more: ratios differ in the last two stages only.
        (
            ResNet50D(resolutions=(8,), depths=(0, 1), expand_ratios=(0.2, 0.35), width_mults=(0.03,)),
            2 * 2 * 2 * (2**4 + 2**5) * (2**2 + 2**3),
        ),
    ],
)
def test_choices_that_round_alike_are_one_network(space: ResNet50D, size: int) -> None:
    """Canonical rows, networks and the size agree where widths and ratios round to the same channels."""
    genes = every_row(space)
    canonical = {row.tobytes() for row in space.canonical(genes)}
    assert space.size == len(canonical) == len(networks(space, genes)) == size


def test_size_of_the_published_space_is_exact() -> None:
    """25 resolutions, the stem's residual block, 2 middles, 3 stems; 3 widths, and 3 ratios a block, per stage."""
    stages = [3 * sum(3 ** (base + depth) for depth in (0, 1, 2)) for base in (2, 2, 4, 2)]
    assert ResNet50D().size == 25 * 2 * 2 * 3 * stages[0] * stages[1] * stages[2] * stages[3]


# -- Once-for-All's lists ------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "residual"), [(0, False), (1, False), (2, True)])
def test_stem_keeps_its_residual_block_at_the_largest_depth_only(depth: int, residual: bool) -> None:
    """Every smaller value of the stem's depth means the same network without it."""
    architecture = THIN.from_ofa(lists(d=[depth, 0, 0, 0, 0]), 64)
    assert ("stem.residual" in architecture.parts) is residual
    assert THIN.to_ofa(architecture)["d"] == [2 if residual else 0, 0, 0, 0, 0]


def test_stem_without_choice_of_depth_keeps_its_residual_block() -> None:
    """With a single depth the stem keeps its residual block, because that depth is the largest."""
    space = ResNet50D(resolutions=(32,), depths=(1,))
    architecture = space.from_ofa(lists(d=[1] * 5, e=[0.2] * 14), 32)
    assert architecture == space.smallest
    assert "stem.residual" in architecture.parts
    assert space.to_ofa(architecture)["d"] == [1] * 5


def test_width_indices_that_round_alike_are_one_network() -> None:
    """Indices 0 and 1 of the published stem's middle are both 24 channels; the smaller is written."""
    space = ResNet50D()
    zero, one, two = (space.from_ofa(lists(w=[index, 0, 0, 0, 0, 0]), 224) for index in range(3))
    assert zero == one != two
    assert [space.to_ofa(each)["w"][0] for each in (zero, one, two)] == [0, 0, 2]


def test_each_width_index_has_its_place() -> None:
    """The width indices are those of the stem's middle, the stem, then the four stages."""
    parts = ResNet50D().from_ofa(lists(w=[2, 1, 0, 1, 2, 0]), 224).parts
    names = ("stem.conv1", "stem.conv2", *(f"stage{number}.block1" for number in range(1, 5)))
    assert [parts[name].out_shape[0] for name in names] == [32, 48, 168, 408, 1024, 1328]


def test_entries_of_skipped_blocks_may_be_anything() -> None:
    """Past a stage's depth no entry of ``e`` is read."""
    ratios = [0.2, 0.2, 9.0, -1.0] * 2 + [0.2] * 4 + [0.0, 7] + [0.2, 0.2, 3, 3]
    assert THIN.from_ofa(lists(e=ratios), 64) == THIN.smallest
    with pytest.raises(SpaceError, match=r"stage1\.block3\.expand_ratio must be one of 0\.2, .* but got 9\.0"):
        THIN.from_ofa(lists(e=ratios, d=[0, 1, 0, 0, 0]), 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w": [0, 0, 0, 0, 0, 3]}, "'w' must be indices from 0 to 2, but got [0, 0, 0, 0, 0, 3]"),
        ({"w": [-1, 0, 0, 0, 0, 0]}, "'w' must be indices from 0 to 2, but got [-1, 0, 0, 0, 0, 0]"),
        ({"w": [0] * 5}, "'w' must have 6 entries, but got 5"),
        ({"d": [0] * 4}, "'d' must have 5 entries, but got 4"),
        ({"e": [0.2] * 17}, "'e' must have 18 entries, but got 17"),
        ({"d": [3, 0, 0, 0, 0]}, "'d' must be among [0, 1, 2], but got 3"),
        ({"d": [0, 0, 0, 3, 0]}, "stage3.depth must be one of 4, 5, 6, but got 7"),
        ({"d": [0, -1, 0, 0, 0]}, "stage1.depth must be one of 2, 3, 4, but got 1"),
        ({"e": [0.3] * 18}, "stage1.block1.expand_ratio must be one of 0.2, 0.25, 0.35, but got 0.3"),
        ({"ks": [3] * 18}, "unknown key 'ks'"),
    ],
)
def test_wrong_once_for_all_lists_are_refused(change: dict[str, Any], message: str) -> None:
    """Lists of a wrong length, indices out of range and wrong choices are refused, never clamped."""
    with pytest.raises(UsageError) as caught:
        THIN.from_ofa(lists(**change), 64, "arch.json")
    assert str(caught.value).startswith("arch.json: ")
    assert message in str(caught.value)


# -- descriptions and spaces of one's own ----------------------------------------------------------


def described(**change: Any) -> dict[str, Any]:
    return {**THIN.describe(THIN.smallest), **change}


def test_description_lists_channels_and_live_ratios() -> None:
    """A description lists channels and the ratios of live blocks."""
    # A tenth of 64, 256, 512, 1024 and 2048, rounded to eight.
    stages = [(24, 2), (48, 2), (104, 4), (208, 2)]
    assert described() == {
        "resolution": 64,
        "stem": {"residual": False, "mid": 8, "width": 8},
        "stages": [{"width": width, "expand_ratios": [0.2] * depth} for width, depth in stages],
    }


def test_any_of_the_ratios_that_round_alike_may_be_described() -> None:
    """24 channels give 8 in the middle for 0.2 and 0.25: both describe the smallest network."""
    data = json.loads(json.dumps(described()))
    data["stages"][0]["expand_ratios"] = [0.25, 0.2]
    assert THIN.from_description(data, "arch.json") == THIN.smallest


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (described(stem={"residual": False, "mid": 12, "width": 8}), "stem.mid.width must be one of 8, 16, but got 12"),
        (described(stem={"residual": False, "mid": 8}), "stem.width"),
        (described(stem={"residal": 1, "mid": 8, "width": 8}), "'stem.residal'; did you mean 'residual'?"),
        (described(stages=[]), "this space has 4 stages, but got 0"),
        (described(stages=[{"width": 24, "expand_ratios": []}] * 4), "stage1.depth must be one of 2, 3, 4, but got 0"),
        (described(stages=[{"width": 25, "expand_ratios": [0.2] * 4}] * 4), "stage1.width must be one of 24, 64, 128"),
        (described(stage=[]), "unknown key 'stage'; did you mean 'stages'?"),
        ({}, "key 'resolution' is missing"),
    ],
)
def test_wrong_description_is_refused(data: dict[str, Any], message: str) -> None:
    """A wrong choice is named with its place and what is allowed; an unknown key with the nearest known."""
    with pytest.raises(UsageError) as caught:
        THIN.from_description(data, "a.json")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width_mult: [1.0]", "unknown key 'width_mult'; did you mean 'width_mults'?"),
        ("width_mults: []", "width_mults must name at least one choice"),
        ("width_mults: [0, 1.0]", "width_mults must be above 0, but got 0"),
        ("width_mults: [-0.5]", "width_mults must be above 0, but got -0.5"),
        ("width_mults: [1.0, .nan]", "width_mults must be above 0, but got nan"),
        ("width_mults: [.inf]", "width_mults must be at most 8192, but got inf"),
        ("width_mults: [1, 1.0]", "width_mults must not repeat a choice, but got [1.0, 1.0]"),
        ("expand_ratios: [0.2, .nan]", "expand_ratios must be above 0, but got nan"),
        ("expand_ratios: [0.0]", "expand_ratios must be above 0, but got 0.0"),
        ("depths: []", "depths must name at least one choice"),
        ("depths: [-1, 0]", "depths must be at least 0, but got -1"),
        ("depths: [0, 0]", "depths must not repeat a choice, but got [0, 0]"),
        ("classes: 1", "classes must be at least 2 and at most 1000000, but got 1"),
        ("kernel_sizes: [3]", "unknown key 'kernel_sizes'"),
    ],
)
def test_wrong_space_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """A space that breaks a rule is refused with the file, the rule and the value as it was given."""
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        ResNet50D.from_yaml(tmp_path / "own.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'own.yaml'}")
    assert message in str(caught.value)


def test_order_of_choices_does_not_matter() -> None:
    """Choices are kept ascending: equal spaces are equal, and a width index counts from the narrowest."""
    one, other = ResNet50D(depths=(2, 0, 1), width_mults=(1.0, 0.65, 0.8)), ResNet50D()
    assert one == other
    assert one.short_hash == other.short_hash


def test_whole_numbers_are_the_same_choices() -> None:
    """A multiplier of 1 is one of 1.0: equal spaces have equal hashes, also after a file has made floats of them."""
    whole, point = (
        ResNet50D(width_mults=(1, 2), expand_ratios=(1,)),
        ResNet50D(width_mults=(1.0, 2.0), expand_ratios=(1.0,)),
    )
    assert whole == point
    assert whole.smallest.id == point.smallest.id


# -- costs by hand -------------------------------------------------------------------------------


def bottleneck(stride: int, projected: bool) -> Part:
    """From 9 pixels a side and 16 channels over 8 to 32, or to 16 where the shortcut is the input itself."""
    channels = 32 if projected else 16
    return Bottleneck((16, 9, 9), channels, 3, stride, "relu", mid_channels=8, shortcut=True, projected=projected)


def test_bottleneck_without_projection_by_hand() -> None:
    """16 channels over 8 and back at 9x9; the input waits for the sum."""
    part = bottleneck(1, projected=False)
    weights = 16 * 8 + 8 * 8 * 9 + 8 * 16
    assert costs.macs(part) == 81 * weights
    assert costs.params(part) == weights + 2 * (8 + 8 + 16)
    assert costs.weight_bytes(part) == 4 * (weights + 8 + 8 + 16)
    # While the last 1x1 runs: the input, the filtered map and the output.
    assert costs.activation_bytes(part) == 4 * 81 * (16 + 8 + 16)


def test_bottleneck_with_projection_by_hand() -> None:
    """With stride 1 the shortcut's 1x1 reads the input itself, at 9x9."""
    part = bottleneck(1, projected=True)
    weights = 16 * 8 + 8 * 8 * 9 + 8 * 32 + 16 * 32
    assert costs.macs(part) == 81 * weights
    assert costs.params(part) == weights + 2 * (8 + 8 + 32 + 32)
    assert costs.weight_bytes(part) == 4 * (weights + 8 + 8 + 32 + 32)
    # While the shortcut's convolution runs: the input, the main branch and the shortcut.
    assert costs.activation_bytes(part) == 4 * 81 * (16 + 32 + 32)


def test_strided_bottleneck_by_hand() -> None:
    """The first 1x1 sees 9x9, all else 5x5: the stride is in the 3x3, and the shortcut pools first, rounding up."""
    part = bottleneck(2, projected=True)
    assert part.out_shape == (32, 5, 5)
    assert costs.macs(part) == 81 * 16 * 8 + 25 * (8 * 8 * 9 + 8 * 32 + 16 * 32)
    assert costs.params(part) == costs.params(bottleneck(1, projected=True))
    moments = {
        "filter": 81 * 16 + 81 * 8 + 25 * 8,
        "project": 81 * 16 + 25 * 8 + 25 * 32,
        "pool": 81 * 16 + 25 * 32 + 25 * 16,
        "shortcut": 25 * 16 + 25 * 32 + 25 * 32,
    }
    assert costs.activation_bytes(part) == 4 * max(moments.values()) == 4 * 2496


def test_stem_by_hand() -> None:
    """Three 3x3 convolutions, the first with stride 2, then max-pooling without weights."""
    parts = THIN.from_ofa(lists(d=[2, 0, 0, 0, 0], w=[2, 1, 0, 0, 0, 0]), 65).parts
    # Half of 32 is 16 in the middle; a quarter of 64 is 16 going out; 65 pixels become 33, then 17.
    stem = [parts[name] for name in ("stem.conv1", "stem.residual", "stem.conv2", "stem.pool")]
    assert [costs.macs(part) for part in stem] == [33**2 * 9 * channels for channels in (3 * 16, 16 * 16, 16 * 16, 0)]
    assert [costs.params(part) for part in stem] == [9 * 48 + 32, 9 * 256 + 32, 9 * 256 + 32, 0]
    assert costs.activation_bytes(stem[0]) == 4 * (65**2 * 3 + 33**2 * 16)
    assert costs.activation_bytes(stem[1]) == 4 * 33**2 * (16 + 16)
    assert costs.activation_bytes(stem[3]) == 4 * (33**2 + 17**2) * 16


def test_key_says_what_the_bottleneck_is() -> None:
    """A latency table's key names sizes, stride, middle channels and the kind of shortcut."""
    assert bottleneck(2, projected=True).key == "bottleneck-in9x9x16-out5x5x32-k3-s2-relu-mid8-shortcut-projected"
    assert bottleneck(1, projected=False).key == "bottleneck-in9x9x16-out9x9x16-k3-s1-relu-mid8-shortcut"
