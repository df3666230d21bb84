"""The ProxylessNAS space: published widths, structure and counts, Once-for-All's lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.errors import UsageError
from edgenas.space import ProxylessNAS, Stage
from edgenas.space import parts as costs

THIN = ProxylessNAS(width=0.35, resolutions=(64, 65), classes=10)


def widths(space: ProxylessNAS) -> list[int]:
    """Output channels of stem, first block, the first block of each stage, and the feature mix."""
    parts = space.smallest.parts
    names = ["stem", "block0", *(f"stage{number}.block1" for number in range(1, 7)), "feature_mix"]
    return [parts[name].out_shape[0] for name in names]


def lists(**change: Any) -> dict[str, Any]:
    """The smallest network in Once-for-All's form, with some lists changed."""
    return {"ks": [3] * 21, "e": [3] * 21, "d": [2] * 5, **change}


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (1.0, [32, 16, 24, 40, 80, 96, 192, 320, 1280]),
        (1.3, [40, 24, 32, 56, 104, 128, 248, 416, 1664]),
        # 11.2 and 5.6 round to 8; 14 to 16; 33.6 to 32, 67.2 to 64.
        (0.35, [16, 8, 8, 16, 32, 32, 64, 112, 448]),
    ],
)
def test_channels_at_several_widths(width: float, expected: list[int]) -> None:
    """Every width times the multiplier, rounded to multiples of eight, never below nine tenths."""
    assert widths(ProxylessNAS(width=width)) == expected


def test_structure_of_the_published_network() -> None:
    """Strides 2 2 2 1 2 1, ReLU6 throughout, no squeeze-excite, an epsilon of 1e-3, a first block without shortcut."""
    parts: dict[str, Any] = ProxylessNAS().largest.parts
    first = [parts[f"stage{number}.block1"] for number in range(1, 7)]
    assert [part.stride for part in first] == [2, 2, 2, 1, 2, 1]
    assert not any(part.shortcut for part in first)
    assert all(parts[f"stage{number}.block4"].shortcut for number in range(1, 6))
    convolutions = [part for part in parts.values() if part.operator in ("conv", "mbconv")]
    assert {(part.activation, part.bn_eps) for part in convolutions} == {("relu6", 1e-3)}
    assert {part.se_channels for part in convolutions if part.operator == "mbconv"} == {0}
    block0 = parts["block0"]
    assert (block0.expand, block0.shortcut, block0.stride, block0.kernel) == (False, False, 1, 3)
    assert list(parts)[-3:] == ["feature_mix", "pool", "classifier"]


def test_last_stage_has_one_block() -> None:
    """The sixth stage is one block with kernel and expand genes, and a depth without choice: 21 blocks in all."""
    space = ProxylessNAS()
    kinds = [gene.kind for gene in space.genes]
    assert [kinds.count(kind) for kind in ("depth", "kernel_size", "expand_ratio")] == [6, 21, 21]
    assert [name for name in space.largest.parts if name.startswith("stage6")] == ["stage6.block1"]


def test_size_of_the_published_space_is_exact() -> None:
    """25 resolutions; five stages of 2, 3 or 4 blocks and one of a single block, 9 choices each."""
    assert ProxylessNAS().size == 25 * (9**2 + 9**3 + 9**4) ** 5 * 9


def test_sizes_of_feature_maps_at_an_odd_resolution() -> None:
    """Each stride of two halves and rounds up: 65, 33, 17, 9, 5, 5, 3, 3."""
    parts = THIN.smallest.at_resolution(65).parts
    names = ["stem", *(f"stage{number}.block2" for number in range(1, 6)), "stage6.block1", "pool"]
    assert [parts[name].out_shape[1] for name in names] == [33, 17, 9, 5, 5, 3, 3, 1]


def test_counts_of_the_reference_implementation(data_folder: Path) -> None:
    """Parameters and MACs at width 0.35 equal what the authors' code counts."""
    reference = json.loads((data_folder / "ofa" / "reference" / "proxyless_w0.35.json").read_text())
    cases = reference["cases"]
    resolutions = tuple({case["resolution"] for case in cases})
    space = ProxylessNAS(width=0.35, resolutions=resolutions, classes=reference["args"]["n_classes"])
    genes = space.encode([space.from_ofa(case["config"], case["resolution"]) for case in cases])
    assert space.params(genes).tolist() == [case["params"] for case in cases]
    assert space.macs(genes).tolist() == [case["macs"] for case in cases]


def test_first_block_by_hand() -> None:
    """Depthwise 3x3 and projection, no expansion; without a shortcut the input dies in the depthwise convolution."""
    part = THIN.smallest.parts["block0"]
    assert (part.in_shape, part.out_shape[0]) == ((16, 32, 32), 8)
    assert costs.macs(part) == 32 * 32 * (16 * 9 + 16 * 8)
    assert costs.params(part) == 16 * 9 + 16 * 8 + 2 * (16 + 8)
    assert costs.activation_bytes(part) == 4 * 32 * 32 * (16 + 16)


def test_head_by_hand() -> None:
    """A 1x1 convolution with batch norm before the pooling, then the classifier."""
    parts = THIN.smallest.parts
    mix, linear = parts["feature_mix"], parts["classifier"]
    # 64 pixels are halved five times: 2 x 2.
    assert (costs.macs(mix), costs.params(mix)) == (2 * 2 * 112 * 448, 112 * 448 + 2 * 448)
    assert (costs.macs(linear), costs.params(linear)) == (448 * 10, 448 * 10 + 10)


# -- Once-for-All's lists ------------------------------------------------------------------------


def test_depth_of_the_last_stage_may_be_left_out() -> None:
    """``d`` with five entries and with a sixth of 1 are the same network; what is written has six."""
    five, six = (THIN.from_ofa(lists(d=d), 64) for d in ([2, 3, 4, 3, 2], [2, 3, 4, 3, 2, 1]))
    assert five == six
    assert THIN.to_ofa(five)["d"] == [2, 3, 4, 3, 2, 1]


def test_entries_of_skipped_blocks_may_be_anything() -> None:
    """The third and fourth entry of a stage of two blocks have no effect, but the sixth stage's entry has."""
    wild = [3, 3, 0, -7] * 5 + [3]
    assert THIN.from_ofa(lists(ks=wild, e=wild), 64) == THIN.smallest
    assert THIN.from_ofa(lists(ks=[3] * 20 + [5]), 64) != THIN.smallest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ks": [3] * 20}, "'ks' must have 21 entries, but got 20"),
        ({"e": [3] * 22}, "'e' must have 21 entries, but got 22"),
        ({"d": [2] * 4}, "'d' must have 6 entries, but got 4"),
        ({"d": [2] * 7}, "'d' must have 6 entries, but got 7"),
        ({"d": [2] * 6}, "stage6.depth must be one of 1, but got 2"),
        ({"d": [2, 2, 2, 2, 5]}, "stage5.depth must be one of 2, 3, 4, but got 5"),
        ({"d": [-2, 2, 2, 2, 2]}, "stage1.depth must be one of 2, 3, 4, but got -2"),
        ({"ks": [3] * 20 + [4]}, "stage6.block1.kernel_size must be one of 3, 5, 7, but got 4"),
        ({"e": [5] * 21}, "stage1.block1.expand_ratio must be one of 3, 4, 6, but got 5"),
        ({"w": [0]}, "unknown key 'w'"),
    ],
)
def test_wrong_once_for_all_lists_are_refused(change: dict[str, Any], message: str) -> None:
    """Lists of a wrong length or with a wrong choice at a live block are refused, never clamped."""
    with pytest.raises(UsageError) as caught:
        THIN.from_ofa(lists(**change), 64, "arch.json")
    assert str(caught.value).startswith("arch.json: ")
    assert message in str(caught.value)


# -- descriptions and spaces of one's own ----------------------------------------------------------


def test_description_has_the_single_block_of_the_last_stage() -> None:
    """A description lists the single block of the last stage."""
    two, one = ({"kernel_sizes": [3] * n, "expand_ratios": [3] * n} for n in (2, 1))
    assert THIN.describe(THIN.smallest) == {"resolution": 64, "stages": [two] * 5 + [one]}


def test_space_from_yaml_has_its_own_stages(tmp_path: Path) -> None:
    """A YAML file sets stages, stem, first block and feature mix."""
    (tmp_path / "own.yaml").write_text(
        "{width: 0.5, resolutions: [15], classes: 4, stem: 24, first: 40, head: 200, stem_stride: 1, depths: [1],\n"
        " stages: [{width: 48, stride: 2, activation: relu6, se: false}]}\n"
    )
    space = ProxylessNAS.from_yaml(tmp_path / "own.yaml")
    assert space.stages == (Stage(48, 2, "relu6", False),)
    parts = space.smallest.parts
    # 24 / 2 = 12 rounds up to 16, 40 / 2 = 20 to 24.
    assert [part.out_shape[0] for part in parts.values()] == [16, 24, 24, 104, 104, 4]
    assert [part.out_shape[1] for part in parts.values()] == [15, 15, 8, 8, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("haed: 640", "unknown key 'haed'; did you mean 'head'?"),
        ("width: 0", "width must be above 0 and at most 16, but got 0.0"),
        ("width: .nan", "width must be above 0 and at most 16, but got nan"),
        ("first: 0", "first must be a width above 0 and at most 8192, but got 0"),
        ("head: -8", "head must be a width above 0 and at most 8192, but got -8"),
        ("head: [960, 1280]", "head: input should be a valid integer"),
        ("depths: [0, 1]", "depths must be above 0, but got 0"),
        ("depths: [-1]", "depths must be above 0, but got -1"),
        ("kernel_sizes: [2]", "kernel_sizes must be odd, but got [2]"),
        ("stem_stride: 0", "stem_stride must be 1 or 2, but got 0"),
        ("stages: [{width: 8, stride: 1, activation: relu6, se: no, depths: []}]", "must name at least one choice"),
    ],
)
def test_wrong_space_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """A space that breaks a rule is refused with the file, the rule and the value."""
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        ProxylessNAS.from_yaml(tmp_path / "own.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'own.yaml'}")
    assert message in str(caught.value)


def test_costs_of_many_are_one_vector() -> None:
    """Costs of 100,000 architectures are one vector, and the first of them those of the first alone."""
    space = ProxylessNAS()
    genes = space.sample(100_000, np.random.default_rng(0))
    assert space.macs(genes).shape == (100_000,)
    assert space.macs(genes)[:3].tolist() == space.macs(genes[:3]).tolist()
