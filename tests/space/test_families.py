"""Genes, ids, readable forms and costs of the architectures of every family."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenas.errors import SpaceError, UsageError
from edgenas.space import Architecture, MobileNetV3, ProxylessNAS, ResNet50D, SearchSpace, Stage, space_from_dict
from edgenas.space import parts as costs
from edgenas.space.layers import Add

SPACES: dict[str, SearchSpace] = {
    "mobilenet_v3": MobileNetV3(width=0.35, resolutions=(24, 31), classes=10),
    "proxyless": ProxylessNAS(),
    "thin proxyless": ProxylessNAS(width=0.35, resolutions=(32, 45, 64), classes=10),
    "own proxyless": ProxylessNAS(
        width=1.3,
        resolutions=(7,),
        classes=2,
        kernel_sizes=(3, 9),
        expand_ratios=(2,),
        depths=(1, 3),
        stem=8,
        stem_stride=1,
        stages=(Stage(8, 1, "relu", True), Stage(16, 2, "hswish", False, depths=(2, 5))),
        first=8,
        head=24,
    ),
    "resnet50d": ResNet50D(),
    "thin resnet50d": ResNet50D(resolutions=(33, 64), classes=10, width_mults=(0.1, 0.15)),
    # Two of three multipliers give the same stem, and the ratios the same narrow middles.
    "rounding resnet50d": ResNet50D(
        resolutions=(1, 2, 45), depths=(0, 1), expand_ratios=(0.2, 0.25, 0.35), width_mults=(0.03, 0.04, 0.2)
    ),
    "rigid resnet50d": ResNet50D(resolutions=(224,), classes=2, depths=(1,), expand_ratios=(0.25,), width_mults=(1.0,)),
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
spaces = st.sampled_from(list(SPACES.values()))
FAMILIES = (MobileNetV3, ProxylessNAS, ResNet50D)


@st.composite
def rows(draw: st.DrawFn, space: SearchSpace) -> tuple[int, ...]:
    return tuple(draw(st.integers(0, len(gene.values) - 1)) for gene in space.genes)


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    space = draw(spaces)
    return Architecture(space, draw(rows(space)))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Architecture, Architecture]:
    """Two architectures of a space that differ in at most two genes, often without effect."""
    space = draw(spaces)
    first = list(draw(rows(space)))
    second = list(first)
    for column in draw(st.lists(st.integers(0, len(first) - 1), max_size=2)):
        second[column] = draw(st.integers(0, len(space.genes[column].values) - 1))
    return Architecture(space, tuple(first)), Architecture(space, tuple(second))


# -- genes and ids ---------------------------------------------------------------------------


@given(architectures())
def test_decoding_undoes_encoding(architecture: Architecture) -> None:
    """An architecture's genes and its id decode to that architecture."""
    space = architecture.space
    assert space.decode(space.encode([architecture])) == [architecture]
    assert space.from_id(architecture.id) == architecture


@settings(max_examples=300)
@given(pairs())
def test_equal_networks_have_equal_genes_and_ids(pair: tuple[Architecture, Architecture]) -> None:
    """Two architectures have the same parts exactly when their canonical genes, ids and values are equal."""
    first, second = pair
    same = first.parts == second.parts
    assert (first.genes == second.genes) is same
    assert (first.id == second.id) is same
    assert (first == second) is same


@every_space
def test_canonical_form_does_not_change_the_network(space: SearchSpace) -> None:
    """Clearing genes without effect leaves every part as it was; clearing them again changes nothing."""
    rng = np.random.default_rng(2)
    genes = rng.integers(0, space.radices, size=(300, len(space.genes)), dtype=np.int64)
    canonical = space.canonical(genes)
    for before, after in zip(space.part_indices(genes), space.part_indices(canonical), strict=True):
        assert before.tolist() == after.tolist()
    assert space.canonical(canonical).tolist() == canonical.tolist()


@every_space
def test_extremes_bound_the_costs(space: SearchSpace) -> None:
    """No architecture costs less than the smallest or more than the largest."""
    genes = space.sample(200, np.random.default_rng(4))
    low, high = space.encode([space.smallest]), space.encode([space.largest])
    for cost in (space.params, space.macs, space.weight_bytes, space.activation_bytes):
        assert cost(low)[0] <= cost(genes).min()
        assert cost(genes).max() <= cost(high)[0]


@every_space
def test_distinct_samples_are_distinct_networks(space: SearchSpace) -> None:
    """A distinct sample has as many different networks as asked for, or all of the space."""
    found = space.decode(space.sample_distinct(20, np.random.default_rng(0)))
    assert len(found) == min(20, space.size)
    assert len({tuple(each.parts.items()) for each in found}) == len(found)


def test_ids_of_different_families_do_not_mix() -> None:
    """A family's id is refused by the spaces of the others."""
    smallest = [family().smallest for family in FAMILIES]
    for one, other in itertools.permutations(smallest, 2):
        with pytest.raises(SpaceError, match="is no architecture of this space"):
            one.space.from_id(other.id)


# -- readable forms --------------------------------------------------------------------------


@given(architectures())
def test_architecture_survives_json(architecture: Architecture) -> None:
    """An architecture written as JSON is read back as the same value."""
    text = json.dumps(architecture.to_dict())
    assert architecture.space.from_description(json.loads(text), "arch.json") == architecture


@given(architectures(), st.data())
def test_architecture_survives_once_for_alls_form(architecture: Architecture, data: st.DataObject) -> None:
    """Once-for-All's lists give the architecture back, with any values at skipped blocks."""
    space = architecture.space
    config = dict(space.to_ofa(architecture))
    resolution = config.pop("r")
    blocks = [slot.name for slot in space.slots if slot.name.startswith("stage")]
    for name in {"ks", "e"} & set(config):
        assert len(config[name]) == len(blocks)
        for number, block in enumerate(blocks):
            if block not in architecture.parts:
                config[name][number] = data.draw(st.integers(-3, 99))
    assert space.from_ofa(json.loads(json.dumps(config)), resolution) == architecture


@every_space
def test_another_resolution_keeps_the_network(space: SearchSpace) -> None:
    """The same network at another resolution has the same weights."""
    for architecture in space.decode(space.sample(5, np.random.default_rng(1))):
        for resolution in space.resolutions[:3]:
            other = architecture.at_resolution(resolution)
            assert other.resolution == resolution == next(iter(other.parts.values())).in_shape[1]
            assert list(map(costs.weight_shapes, other.parts.values())) == list(
                map(costs.weight_shapes, architecture.parts.values())
            )


@every_space
def test_description_that_contradicts_its_id_is_refused(space: SearchSpace) -> None:
    """A description whose id belongs to other choices is refused."""
    data = {**space.describe(space.smallest), "id": f"{space.short_hash}-0z"}
    with pytest.raises(SpaceError, match=r"a\.json: the id .* belongs to other choices"):
        space.from_description(data, "a.json")


@every_space
def test_unlisted_resolution_is_refused(space: SearchSpace) -> None:
    """A resolution that the space does not have is refused; the message lists its resolutions."""
    config = dict(space.to_ofa(space.largest))
    config.pop("r")
    with pytest.raises(SpaceError, match=r"arch\.json: resolution must be one of \d+.*, but got 999"):
        space.from_ofa(config, 999, "arch.json")


# -- spaces as data ----------------------------------------------------------------------------


@every_space
def test_space_survives_json(space: SearchSpace) -> None:
    """A space written as JSON is read back as an equal value of its family with the same ids."""
    again = space_from_dict(json.loads(json.dumps(space.to_dict())), "space.json")
    assert again == space
    assert type(again) is type(space)
    assert again.largest.id == space.largest.id


def test_hashes_tell_families_and_fields_apart() -> None:
    """Spaces of different families, or that differ in one field, have different hashes."""
    found = [family(**change) for family in FAMILIES for change in ({}, {"classes": 10}, {"resolutions": (224,)})]
    assert len({space.short_hash for space in found}) == 9


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"clases": 10}, "unknown key 'clases'; did you mean 'classes'?"),
        ({"resolution": [32]}, "unknown key 'resolution'; did you mean 'resolutions'?"),
        ({"expand_ratio": [3]}, "unknown key 'expand_ratio'; did you mean 'expand_ratios'?"),
        ({"classes": "ten"}, "classes: input should be a valid integer"),
        ({"classes": 1}, "classes must be at least 2 and at most 1000000, but got 1"),
        ({"classes": 0}, "classes must be at least 2 and at most 1000000, but got 0"),
        ({"classes": 10**9}, "classes must be at least 2 and at most 1000000, but got 1000000000"),
        ({"classes": True}, "classes: input should be a valid integer, but got True"),
        ({"resolutions": list(range(32, 300))}, "resolutions must name at most 256 choices, but got 268"),
        (
            {"resolutions": list(range(32, 280)), "depths": list(range(1, 65))},
            "a space may have at most 200,000 parts",
        ),
        ({"resolutions": []}, "resolutions must name at least one choice"),
        ({"resolutions": [0, 32]}, "resolutions must be above 0, but got 0"),
        ({"resolutions": [32, 32]}, "resolutions must not repeat a choice, but got [32, 32]"),
        ({"resolutions": [9000]}, "resolutions must be at most 8192, but got 9000"),
        ({"expand_ratios": []}, "expand_ratios must name at least one choice"),
        ({"expand_ratios": [0]}, "expand_ratios must be above 0, but got 0"),
        ({"depths": []}, "depths must name at least one choice"),
        ({"depths": [2, -1]}, "but got -1"),
        ({"depths": [1, 1]}, "depths must not repeat a choice, but got [1, 1]"),
        ({"depths": [1.5]}, "depths.0: input should be a valid integer"),
    ],
)
def test_wrong_space_is_refused(family: type[SearchSpace], data: dict[str, Any], message: str) -> None:
    """Every family refuses unknown keys, naming the nearest known one, and wrong values, naming the rule."""
    with pytest.raises(UsageError) as caught:
        space_from_dict({"family": family.family, **data}, "space.json")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("family", "key", "nearest"),
    [
        ("proxyless", "kernel_size", "kernel_sizes"),
        ("proxyless", "haed", "head"),
        ("proxyless", "frist", "first"),
        ("proxyless", "stem_strid", "stem_stride"),
        ("resnet50d", "width_mult", "width_mults"),
        ("resnet50d", "depth", "depths"),
    ],
)
def test_unknown_keys_of_a_family_are_refused_with_its_nearest(family: str, key: str, nearest: str) -> None:
    """The suggested key is one of that family."""
    with pytest.raises(UsageError) as caught:
        space_from_dict({"family": family, key: [1]}, "space.json")
    assert f"unknown key {key!r}; did you mean {nearest!r}?" in str(caught.value)


@pytest.mark.parametrize("family", ["proxyles", "resnet50", "mobilenet_v2"])
def test_unknown_family_lists_the_known(family: str) -> None:
    """An unknown family is refused; the message lists the known ones."""
    with pytest.raises(UsageError, match=r"unknown family") as caught:
        space_from_dict({"family": family}, "space.json")
    assert "did you mean" in str(caught.value) or all(name in str(caught.value) for name in ("proxyless", "resnet50d"))


# -- parts and costs ---------------------------------------------------------------------------


@every_space
@pytest.mark.parametrize("cost", ["params", "macs", "weight_bytes", "activation_bytes"])
def test_costs_of_a_matrix_are_those_of_the_parts(space: SearchSpace, cost: str) -> None:
    """A vector of costs equals the sum over each architecture's parts, and for peak memory their maximum."""
    genes = space.sample(40, np.random.default_rng(3))
    combine = max if cost == "activation_bytes" else sum
    one_by_one = [combine(map(getattr(costs, cost), arch.parts.values())) for arch in space.decode(genes)]
    found = getattr(space, cost)(genes)
    assert found.dtype == np.float64
    assert found.tolist() == one_by_one


@every_space
def test_genes_without_effect_cost_nothing(space: SearchSpace) -> None:
    """Rows that are not canonical cost the same as their canonical form."""
    rng = np.random.default_rng(6)
    genes = rng.integers(0, space.radices, size=(200, len(space.genes)), dtype=np.int64)
    for cost in (space.params, space.macs, space.weight_bytes, space.activation_bytes):
        assert cost(genes).tolist() == cost(space.canonical(genes)).tolist()


@every_space
def test_parts_fit_together(space: SearchSpace) -> None:
    """Each part begins with the shape of the one before, from the image to the classes; sums are of one shape."""
    for architecture in space.decode(space.sample(20, np.random.default_rng(1))):
        chain = list(architecture.parts.values())
        assert chain[0].in_shape == (3, architecture.resolution, architecture.resolution)
        assert chain[-1].out_shape == (space.classes, 1, 1)
        for before, after in itertools.pairwise(chain):
            assert before.out_shape == after.in_shape
        for graph in (part.graph for part in chain):
            shapes = [graph.in_shape, *(layer.shape for layer in graph.layers)]
            sums = [layer for layer in graph.layers if isinstance(layer, Add)]
            assert all({shapes[value] for value in layer.inputs} == {layer.shape} for layer in sums)


@every_space
def test_equal_keys_mean_equal_parts(space: SearchSpace) -> None:
    """A latency table's key names one part only."""
    parts = {part for slot in space.slots for part in slot.parts if part is not None}
    assert len({part.key for part in parts}) == len(parts)


@every_space
def test_empty_matrix_costs_nothing(space: SearchSpace) -> None:
    """An empty genes matrix gives an empty vector of costs."""
    empty = space.encode([])
    assert space.params(empty).shape == space.activation_bytes(empty).shape == (0,)


def test_an_architecture_gives_its_lists_itself() -> None:
    """``architecture.to_ofa()`` equals ``space.to_ofa(architecture)``, and ``from_ofa`` reads it."""
    space = ResNet50D(classes=10)
    architecture = space.largest
    lists = architecture.to_ofa()
    assert lists == space.to_ofa(architecture)
    assert space.from_ofa(lists, lists["r"]) == architecture
