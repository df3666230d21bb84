"""Genes, canonical form, ids and sampling."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.errors import SpaceError
from edgenas.space import Architecture, MobileNetV3, Stage

SPACES = [
    MobileNetV3(),
    MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10),
    MobileNetV3(
        resolutions=(8,),
        kernel_sizes=(3, 5),
        expand_ratios=(2,),
        depths=(1, 3),
        stages=(Stage(8, 1, "relu", True), Stage(16, 2, "hswish", False, depths=(2, 3, 5))),
    ),
]
spaces = st.sampled_from(SPACES)


@st.composite
def rows(draw: st.DrawFn, space: MobileNetV3) -> tuple[int, ...]:
    return tuple(draw(st.integers(0, len(gene.values) - 1)) for gene in space.genes)


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    space = draw(spaces)
    return Architecture(space, draw(rows(space)))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Architecture, Architecture]:
    """Two architectures of a space that differ in at most two genes, often only in dead ones."""
    space = draw(spaces)
    first = list(draw(rows(space)))
    second = list(first)
    for column in draw(st.lists(st.integers(0, len(first) - 1), max_size=2)):
        second[column] = draw(st.integers(0, len(space.genes[column].values) - 1))
    return Architecture(space, tuple(first)), Architecture(space, tuple(second))


@given(st.lists(architectures(), min_size=1, max_size=4))
def test_decoding_undoes_encoding(several: list[Architecture]) -> None:
    """decode(encode(a)) == a, for a matrix of architectures at once."""
    space = several[0].space
    same = [architecture for architecture in several if architecture.space == space]
    assert space.decode(space.encode(same)) == same


@given(pairs())
def test_equal_networks_have_equal_genes_and_ids(pair: tuple[Architecture, Architecture]) -> None:
    """Two architectures have the same parts exactly when their canonical genes, ids and values are equal."""
    first, second = pair
    same = first.parts == second.parts
    assert (first.genes == second.genes) is same
    assert (first.id == second.id) is same
    assert (first == second) is same


@given(st.data())
def test_canonical_form_does_not_change_the_network(data: st.DataObject) -> None:
    """Clearing dead genes leaves every part as it was, and clearing them again changes nothing."""
    space = data.draw(spaces)
    matrix = np.array([data.draw(rows(space))], dtype=np.int64)
    canonical = space.canonical(matrix)
    for before, after in zip(space.part_indices(matrix), space.part_indices(canonical), strict=True):
        assert before.tolist() == after.tolist()
    assert space.canonical(canonical).tolist() == canonical.tolist()


@given(architectures())
def test_id_decodes_to_its_architecture(architecture: Architecture) -> None:
    """The space decodes an id to its architecture."""
    assert architecture.space.from_id(architecture.id) == architecture


@given(architectures(), st.data())
def test_damaged_id_is_refused_or_another_architectures(architecture: Architecture, data: st.DataObject) -> None:
    """An id with one changed letter is refused, or is the id of another valid architecture."""
    text = architecture.id
    place = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:place] + data.draw(st.characters(codec="ascii")) + text[place + 1 :]
    try:
        found = architecture.space.from_id(damaged)
    except SpaceError:
        return
    assert found.id == damaged


@given(spaces, st.text(max_size=40), st.booleans())
def test_any_text_is_no_crash(space: MobileNetV3, text: str, prefixed: bool) -> None:
    """Arbitrary text, with the space's prefix or without, is refused with a SpaceError or is a true id."""
    if prefixed:
        text = f"{space.short_hash}-{text}"
    try:
        found = space.from_id(text)
    except SpaceError:
        return
    assert found.id == text


def test_id_of_another_space_is_refused(digits: MobileNetV3, tiny: MobileNetV3) -> None:
    """An id carries its space; another space refuses it and says how its own ids begin."""
    with pytest.raises(SpaceError, match=f"is no architecture of this space: its ids begin with {tiny.short_hash}-"):
        tiny.from_id(digits.largest.id)


def test_padded_and_upper_case_ids_are_refused(digits: MobileNetV3) -> None:
    """Padded and upper-case ids are refused."""
    prefix, _, number = digits.largest.id.partition("-")
    for text in (f"{prefix}-0{number}", f"{prefix}-{number.upper()}"):
        with pytest.raises(SpaceError):
            digits.from_id(text)


@given(architectures(), st.text("0123456789abcdefghjkmnpqrstvwxyz", min_size=6, max_size=6))
def test_weights_of_its_own_are_in_the_id_alone(architecture: Architecture, weights: str) -> None:
    """The id names them and decodes again; genes and parts are those of the architecture with inherited weights."""
    own = dataclasses.replace(architecture, weights=weights)
    assert own.id == f"{architecture.id}+{weights}"
    assert architecture.space.from_id(own.id) == own != architecture
    assert own.inherited == architecture
    assert own.genes == architecture.genes
    described = {**architecture.to_dict(), "id": own.id}
    assert architecture.space.from_description(described, "test") == own


@pytest.mark.parametrize("weights", ["", "abc", "abcdefg", "abcdel", "ABCDEF", "abc+de", "\u0660" * 6, "x" * 100_000])
def test_other_names_of_weights_are_refused(digits: MobileNetV3, weights: str) -> None:
    """Six characters of the ids' alphabet, nothing else, on a short line."""
    with pytest.raises(SpaceError, match="is no name of weights: behind the plus sign, an id has 6 char") as caught:
        digits.from_id(f"{digits.smallest.id}+{weights}")
    assert len(str(caught.value)) < 200


def test_space_hash_tells_spaces_apart() -> None:
    """Spaces that differ in any field have different hashes; equal ones have the same."""
    hashes = {
        MobileNetV3(**change).short_hash
        for change in (
            {},
            {"width": 1.2},
            {"classes": 10},
            {"depths": (2, 3)},
            {"stem_stride": 1},
            {"head": (960, 1284)},
        )
    }
    assert len(hashes) == 6
    assert MobileNetV3(depths=(4, 2, 3)).short_hash == MobileNetV3().short_hash


def test_size_equals_the_number_of_different_networks(tiny: MobileNetV3) -> None:
    """The size equals the number of different networks among all rows of genes."""
    every_row = itertools.product(*(range(len(gene.values)) for gene in tiny.genes))
    found = {tuple(Architecture(tiny, row).parts.items()) for row in every_row}
    # 2 resolutions x (4 + 4 * 4 first-stage choices) x 4 second-stage choices
    assert tiny.size == len(found) == 2 * (4 + 16) * 4


def test_size_of_the_published_space_is_exact() -> None:
    """The size follows from 25 resolutions and 5 stages of 2, 3 or 4 blocks with 9 choices each."""
    assert MobileNetV3().size == 25 * (9**2 + 9**3 + 9**4) ** 5


@pytest.mark.parametrize("space", SPACES)
def test_sampling_repeats_with_its_seed(space: MobileNetV3) -> None:
    """Equal generators give equal architectures, and a shorter sample is the beginning of a longer one."""
    ten = space.sample(10, np.random.default_rng(7))
    assert ten.tolist() == space.sample(10, np.random.default_rng(7)).tolist()
    assert ten[:5].tolist() == space.sample(5, np.random.default_rng(7)).tolist()
    assert ten.tolist() != space.sample(10, np.random.default_rng(8)).tolist()


@pytest.mark.parametrize("space", SPACES)
def test_samples_are_canonical(space: MobileNetV3) -> None:
    """Every sampled row is within range and in canonical form."""
    genes = space.sample(200, np.random.default_rng(0))
    assert genes.shape == (200, len(space.genes))
    assert genes.dtype == np.int64
    assert space.encode(space.decode(genes)).tolist() == genes.tolist()


def test_sampling_is_uniform_over_each_choice(digits: MobileNetV3) -> None:
    """Over 3,000 samples each resolution and each depth is drawn about a third of the time."""
    genes = digits.sample(3000, np.random.default_rng(0))
    for column in range(6):
        counts = np.bincount(genes[:, column], minlength=3)
        # Six standard deviations of a binomial with n = 3000, p = 1/3 are 155.
        assert np.abs(counts - 1000).max() < 155


def test_nothing_sampled_is_an_empty_matrix(digits: MobileNetV3) -> None:
    """A sample of no architectures is a matrix without rows, with a column for each gene."""
    assert digits.encode([]).shape == digits.sample(0, np.random.default_rng(0)).shape == (0, 46)


@pytest.mark.parametrize(("change", "message"), [(3, "but got 3"), (-1, "but got -1")])
def test_gene_out_of_range_is_named(digits: MobileNetV3, change: int, message: str) -> None:
    """An index beyond a gene's values is refused, not clamped."""
    genes = list(digits.largest.genes)
    genes[1] = change
    with pytest.raises(SpaceError, match=f"gene stage1.depth must be from 0 to 2, {message}"):
        Architecture(digits, tuple(genes))


def test_wrong_number_of_genes_is_refused(digits: MobileNetV3) -> None:
    """A row of a wrong length is refused; the message has both lengths."""
    with pytest.raises(SpaceError, match="has 46 genes, but got 2"):
        Architecture(digits, (0, 0))


def test_gene_knows_its_kind(digits: MobileNetV3) -> None:
    """A gene's kind is the last word of its name."""
    assert {gene.kind for gene in digits.genes} == {"resolution", "depth", "kernel_size", "expand_ratio"}
