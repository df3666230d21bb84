"""The MobileNetV3 space: widths, published counts, readable forms, custom spaces."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.errors import SpaceError, UsageError
from edgenas.space import Architecture, MobileNetV3, Stage, space_from_dict
from edgenas.space.rules import make_divisible

DIGITS = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)

OWN_SPACE = """
width: 0.5
resolutions: [28, 32]
classes: 10
kernel_sizes: [3, 5]
stem_stride: 1
stages:
  - {width: 24, stride: 2, activation: relu, se: false, depths: [1, 2]}
  - {width: 40, stride: 2, activation: hswish, se: true}
head: [128, 256]
"""


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    return Architecture(DIGITS, tuple(draw(st.integers(0, len(gene.values) - 1)) for gene in DIGITS.genes))


def widths(space: MobileNetV3) -> list[int]:
    """Output channels of stem, first block, the last block of each stage, and the head."""
    parts = space.smallest.parts
    names = ["stem", "block0", *(f"stage{number}.block2" for number in range(1, 6)), "final_expand", "feature_mix"]
    return [parts[name].out_shape[0] for name in names]


def ofa_genes(space: MobileNetV3, config: dict[str, Any], resolution: int) -> list[int]:
    return list(space.from_ofa(config, resolution).genes)


# -- published figures -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"), [(16, 16), (19.2, 24), (28.8, 32), (8.4, 8), (14, 16), (5.6, 8), (39.2, 40), (67.2, 64)]
)
def test_channels_are_rounded_by_the_published_rule(value: float, expected: int) -> None:
    """The nearest multiple of eight, one more where that loses over a tenth."""
    assert make_divisible(value) == expected


def test_channels_at_the_published_widths() -> None:
    """The channel tables of the released supernets, widths 1.0 and 1.2."""
    assert widths(MobileNetV3()) == [16, 16, 24, 40, 80, 112, 160, 960, 1280]
    assert widths(MobileNetV3(width=1.2)) == [24, 24, 32, 48, 96, 136, 192, 1152, 1536]


def test_largest_and_smallest_released_subnets() -> None:
    """Published counts at 224: 7,664,760 and 3,410,792 parameters, 566,170,656 and 121,278,672 MACs."""
    space = MobileNetV3(resolutions=(224,))
    genes = space.encode([space.largest, space.smallest])
    assert space.params(genes).tolist() == [7_664_760, 3_410_792]
    assert space.macs(genes).tolist() == [566_170_656, 121_278_672]


def test_counts_of_all_published_subnets(data_folder: Path) -> None:
    """Parameters and MACs of 1,081 subnets of the released supernet equal the published integers."""
    space = MobileNetV3()
    with (data_folder / "ofa" / "ofa_mbv3_w1.0_imagenet_top1.csv").open() as file:
        records = list(csv.DictReader(file))
    rows = []
    for record in records:
        fields = (("ks", "kernel_sizes"), ("e", "expand_ratios"), ("d", "depths"))
        config = {short: [int(word) for word in record[name].split()] for short, name in fields}
        rows.append(ofa_genes(space, config, int(record["resolution"])))
    genes = np.array(rows, dtype=np.int64)
    assert len(genes) == 1081
    assert space.params(genes).tolist() == [int(record["params"]) for record in records]
    assert space.macs(genes).tolist() == [int(record["macs"]) for record in records]


def test_counts_of_the_reference_implementation(data_folder: Path) -> None:
    """Parameters and MACs at width 0.35 equal what the authors' code counts."""
    reference = json.loads((data_folder / "ofa" / "reference" / "mbv3_w0.35.json").read_text())
    cases = reference["cases"]
    resolutions = tuple({case["resolution"] for case in cases})
    space = MobileNetV3(width=0.35, resolutions=resolutions, classes=reference["args"]["n_classes"])
    genes = np.array([ofa_genes(space, case["config"], case["resolution"]) for case in cases], dtype=np.int64)
    assert space.params(genes).tolist() == [case["params"] for case in cases]
    assert space.macs(genes).tolist() == [case["macs"] for case in cases]


def test_block_structure_of_the_paper() -> None:
    """Strides, activations, squeeze-excite and shortcuts are those of the paper's five stages."""
    parts: dict[str, Any] = MobileNetV3().largest.parts
    first = [parts[f"stage{number}.block1"] for number in range(1, 6)]
    assert [part.stride for part in first] == [2, 2, 2, 1, 2]
    assert [part.activation for part in first] == ["relu", "relu", "hswish", "hswish", "hswish"]
    assert [part.se_channels > 0 for part in first] == [False, True, False, True, True]
    assert not any(part.shortcut for part in first)
    assert all(parts[f"stage{number}.block2"].shortcut for number in range(1, 6))
    assert (parts["block0"].expand, parts["block0"].shortcut, parts["block0"].kernel) == (False, True, 3)


# -- readable forms --------------------------------------------------------------------------


@given(architectures())
def test_architecture_survives_json(architecture: Architecture) -> None:
    """An architecture written as JSON is read back as the same value."""
    text = json.dumps(architecture.to_dict())
    assert DIGITS.from_description(json.loads(text), "arch.json") == architecture


@given(architectures(), st.data())
def test_architecture_survives_once_for_alls_form(architecture: Architecture, data: st.DataObject) -> None:
    """Once-for-All's lists give the architecture back, with any values at skipped blocks."""
    config = dict(DIGITS.to_ofa(architecture))
    resolution = config.pop("r")
    assert isinstance(resolution, int)
    for name in ("ks", "e"):
        values = config[name]
        assert isinstance(values, list)
        for block in range(20):
            if f"stage{block // 4 + 1}.block{block % 4 + 1}" not in architecture.parts:
                values[block] = data.draw(st.integers(-3, 99))
    assert DIGITS.from_ofa(config, resolution) == architecture


def test_description_lists_the_live_choices_only() -> None:
    """A description lists the live choices and no others."""
    description = DIGITS.smallest.to_dict()
    assert description["id"] == DIGITS.smallest.id
    assert description["resolution"] == 24
    assert description["stages"] == [{"kernel_sizes": [3, 3], "expand_ratios": [3, 3]}] * 5


def broken(path: list[str | int], value: Any) -> dict[str, Any]:
    """The smallest architecture's description with one place changed."""
    description: Any = json.loads(json.dumps(DIGITS.describe(DIGITS.smallest)))
    place = description
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return dict(description)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (broken(["resolution"], 30), "a.json: resolution must be one of 24, 28, 32, but got 30"),
        (broken(["stages", 0, "kernel_sizes", 1], 4), "stage1.block2.kernel_size must be one of 3, 5, 7, but got 4"),
        (broken(["stages", 1, "expand_ratios"], [3]), "stage2 has 2 kernel_sizes and 1 expand_ratios"),
        (broken(["stages", 1], {"kernel_sizes": [3], "expand_ratios": [3]}), "stage2.depth must be one of 2, 3, 4"),
        (broken(["stages"], []), "this space has 5 stages, but got 0"),
        (broken(["resolutoin"], 24), "unknown key 'resolutoin'; did you mean 'resolution'?"),
        (broken(["stages", 0, "kernels"], [3]), "unknown key 'stages.0.kernels'; did you mean 'kernel_sizes'?"),
        ({}, "key 'resolution' is missing"),
    ],
)
def test_wrong_description_is_refused(data: dict[str, Any], message: str) -> None:
    """A wrong choice is named with its place and what is allowed; an unknown key with the nearest known."""
    with pytest.raises(UsageError) as caught:
        DIGITS.from_description(data, "a.json")
    assert message in str(caught.value)


def test_description_that_contradicts_its_id_is_refused() -> None:
    """A description whose id belongs to other choices or to another space is refused."""
    data = {**DIGITS.describe(DIGITS.smallest), "id": DIGITS.largest.id}
    with pytest.raises(SpaceError, match=r"a\.json: the id .* belongs to other choices; correct or remove it"):
        DIGITS.from_description(data, "a.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ks": [3] * 19}, "'ks' must have 20 entries, but got 19"),
        ({"d": [2] * 6}, "'d' must have 5 entries, but got 6"),
        ({"e": [5] * 20}, "stage1.block1.expand_ratio must be one of 3, 4, 6, but got 5"),
        ({"d": [2, 2, 2, 2, 5]}, "stage5.depth must be one of 2, 3, 4, but got 5"),
        ({"w": [0]}, "unknown key 'w'"),
        ({"ks": "333"}, "ks: input should be a valid"),
    ],
)
def test_wrong_once_for_all_lists_are_refused(change: dict[str, Any], message: str) -> None:
    """Lists of a wrong length or with a wrong choice at a live block are refused, never clamped."""
    config = {"ks": [3] * 20, "e": [3] * 20, "d": [2] * 5, **change}
    with pytest.raises(UsageError) as caught:
        DIGITS.from_ofa(config, 24, "arch.json")
    assert str(caught.value).startswith("arch.json: ")
    assert message in str(caught.value)


# -- spaces as data ----------------------------------------------------------------------------


def test_space_from_yaml_has_its_own_stages(tmp_path: Path) -> None:
    """A YAML file sets the widths, depths and strides of the stages."""
    (tmp_path / "own.yaml").write_text(OWN_SPACE)
    space = MobileNetV3.from_yaml(tmp_path / "own.yaml")
    # Depths of stage 1: 1, 2; of stage 2 the default 2, 3, 4; 2 kernels x 3 ratios a block.
    assert space.size == 2 * (6 + 6**2) * (6**2 + 6**3 + 6**4)
    parts = space.largest.parts
    assert [name for name in parts if name.startswith("stage1")] == ["stage1.block1", "stage1.block2"]
    assert [parts[name].out_shape[1] for name in ("stem", "stage1.block1", "stage2.block1")] == [32, 16, 8]
    # 24 * 0.5 = 12 rounds up to 16; 40 * 0.5 = 20 to 24; 128 and 256 are halved.
    assert [parts[name].out_shape[0] for name in ("stage1.block1", "stage2.block4", "final_expand", "feature_mix")] == [
        16,
        24,
        64,
        128,
    ]


def test_space_survives_json(tmp_path: Path) -> None:
    """A space written as JSON is read back as an equal value with the same ids."""
    (tmp_path / "own.yaml").write_text(OWN_SPACE)
    space = MobileNetV3.from_yaml(tmp_path / "own.yaml")
    again = space_from_dict(json.loads(json.dumps(space.to_dict())), "space.json")
    assert again == space
    assert again.largest.id == space.largest.id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("widht: 0.35", "unknown key 'widht'; did you mean 'width'?"),
        ("stages: [{width: 8, stirde: 1}]", "unknown key 'stages.0.stirde'; did you mean 'stride'?"),
        ("width: wide", "width: input should be a valid number"),
        ("width: 0", "width must be above 0 and at most 16, but got 0.0"),
        ("kernel_sizes: [3, 4]", "kernel_sizes must be odd, but got [4]"),
        ("kernel_sizes: []", "kernel_sizes must name at least one choice"),
        ("depths: [2, 2]", "depths must not repeat a choice, but got [2, 2]"),
        ("expand_ratios: [1, 2]", "expand_ratios must be above 1, but got 1"),
        ("resolutions: [0]", "resolutions must be above 0, but got 0"),
        ("classes: 1", "classes must be at least 2 and at most 1000000, but got 1"),
        ("stages: []", "a space needs at least one stage"),
        ("stages: [{width: 8, stride: 3, activation: relu, se: no}]", "a stage's stride must be 1 or 2, but got 3"),
        ("stages: [{width: 8, stride: 1, activation: elu, se: no}]", "one of relu, relu6, hswish, but got 'elu'"),
        ("- width", "a space must be a mapping, for example 'classes: 10'"),
        ("width: [", "is not valid YAML"),
    ],
)
def test_wrong_space_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """A space that breaks a rule is refused with the file, the rule and the value."""
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        MobileNetV3.from_yaml(tmp_path / "own.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'own.yaml'}")
    assert message in str(caught.value)


@pytest.mark.parametrize("family", ["mobilenet_v4", ["mobilenet_v3"], None])
def test_unknown_family_lists_the_known(family: Any) -> None:
    """An unknown family is refused; the message lists the known ones."""
    with pytest.raises(UsageError, match=r"space\.json: unknown family .* known: mobilenet_v3"):
        space_from_dict({"family": family}, "space.json")


def test_stage_is_a_value() -> None:
    """Equal stages are equal, whatever the order in which their depths were given."""
    assert Stage(8, 1, "relu", True, (3, 2)) == Stage(8, 1, "relu", True, (2, 3))
