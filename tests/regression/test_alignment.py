"""Which operators of two models belong together."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edgenas.profilers import Operator
from edgenas.regression.alignment import align_operators

Shapes = tuple[tuple[int, ...], ...]


def conv(name: str, channels: int = 8, **changes: object) -> Operator:
    """A convolution with so many output channels."""
    return Operator(name, "Conv", "CPU", (), ((1, 8, 4, 4),), ((1, channels, 4, 4),), **changes)  # type: ignore[arg-type]


def relu(name: str, channels: int = 8) -> Operator:
    return Operator(name, "Relu", "CPU", (), ((1, channels, 4, 4),), ((1, channels, 4, 4),))


NET = [conv("a", 8), relu("b", 8), conv("c", 16), relu("d", 16), conv("e", 32)]


def renamed(operators: list[Operator]) -> list[Operator]:
    return [replace(each, name=f"n{place}") for place, each in enumerate(operators)]


def test_a_model_is_paired_with_itself() -> None:
    """Each operator with itself."""
    assert align_operators(NET, NET) == [(place, place) for place in range(5)]


def test_an_added_operator_has_no_partner() -> None:
    """It stands where the second model runs it."""
    longer = [*NET[:3], conv("x", 99), *NET[3:]]
    assert align_operators(NET, longer) == [(0, 0), (1, 1), (2, 2), (None, 3), (3, 4), (4, 5)]


def test_a_removed_operator_has_no_partner() -> None:
    """It stands behind the operator that it ran behind."""
    assert align_operators(NET, [*NET[:2], *NET[3:]]) == [(0, 0), (1, 1), (2, None), (3, 2), (4, 3)]


def test_names_that_all_changed_do_not_matter() -> None:
    """Types and shapes find the added operator."""
    longer = renamed([*NET[:3], conv("x", 99), *NET[3:]])
    assert align_operators(NET, longer) == [(0, 0), (1, 1), (2, 2), (None, 3), (3, 4), (4, 5)]


def test_numbered_names_that_moved_by_one_do_not_matter() -> None:
    """A layer in front gives every operator the name of the one before it."""
    before = [conv(f"Conv_{place}", 8 * place + 8) for place in range(5)]
    after = [conv(f"Conv_{place}", channels) for place, channels in enumerate([99, 8, 16, 24, 32, 40])]
    assert align_operators(before, after) == [(None, 0), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]


def test_a_wider_layer_is_found_by_its_name() -> None:
    """A convolution that got more channels, and what follows it, are the same layers still."""
    wider = [conv("a", 8), relu("b", 8), conv("c", 24), relu("d", 24), conv("e", 32)]
    assert align_operators(NET, wider) == [(place, place) for place in range(5)]


def test_the_nodes_that_operators_compute_tell_more_than_names() -> None:
    """A fused operator of another name and type belongs to the convolution that it contains."""
    before = [conv("c_nchwc", 8, sources=("c", "r")), relu("y")]
    after = [replace(conv("c", sources=("c",)), type="FusedConv"), relu("x"), relu("y")]
    assert align_operators(before, after) == [(0, 0), (None, 1), (1, 2)]


def test_branches_may_run_in_another_order() -> None:
    """Equal operators that changed their places are no removed and no added ones."""
    before = [conv("a", 8), conv("left", 16), conv("right", 24), conv("end", 8)]
    after = [before[0], before[2], before[1], before[3]]
    assert sorted(align_operators(before, after)) == [(0, 0), (1, 2), (2, 1), (3, 3)]


def test_a_model_without_operators_in_common() -> None:
    """Nothing is paired, and nothing is lost."""
    assert align_operators([conv("a")], [relu("b")]) in ([(None, 0), (0, None)], [(0, None), (None, 0)])
    assert align_operators([], [relu("b")]) == [(None, 0)]
    assert align_operators([relu("b")], []) == [(0, None)]


OPERATORS = st.lists(
    st.builds(
        Operator,
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["Conv", "Relu"]),
        st.just("CPU"),
        st.just(()),
        st.sampled_from([((1, 2),), ((3, 4),)]),
        st.just(()),
        st.sampled_from([(), ("a",), ("a", "b")]),
    ),
    max_size=8,
)


@given(OPERATORS, OPERATORS)
def test_every_operator_is_in_one_pair(before: list[Operator], after: list[Operator]) -> None:
    """No operator is lost or paired twice, and the second model's are in order."""
    pairs = align_operators(before, after)
    old = [first for first, _ in pairs if first is not None]
    new = [second for _, second in pairs if second is not None]
    assert sorted(old) == list(range(len(before)))
    assert new == list(range(len(after)))
    assert (None, None) not in pairs


@given(OPERATORS, OPERATORS)
def test_partners_have_something_in_common(before: list[Operator], after: list[Operator]) -> None:
    """A pair has the same name, type or a node of the file."""
    for old, new in align_operators(before, after):
        if old is not None and new is not None:
            first, second = before[old], after[new]
            assert first.name == second.name or first.type == second.type or set(first.sources) & set(second.sources)
