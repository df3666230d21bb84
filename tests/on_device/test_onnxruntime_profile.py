"""Reading onnxruntime's profile: what a correct one says, and what no other one does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.on_device import onnxruntime_profile
from edgenas.on_device.onnxruntime_profile import ProfileError, list_operators, read_operators

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def run(start: int, spent: int) -> dict[str, Any]:
    """The event of a run of the model."""
    return {"cat": "Session", "name": "model_run", "ts": start, "dur": spent, "ph": "X", "args": {}}


def node(index: int, start: int, spent: int, provider: str = CPU, name: str = "", kind: str = "Conv") -> dict[str, Any]:
    """The event of a node, with its input of 3 x 4 and its output of 3 x 2."""
    return {
        "cat": "Node",
        "name": f"{name or f'node{index}'}_kernel_time",
        "ts": start,
        "dur": spent,
        "args": {
            "op_name": kind,
            "provider": provider,
            "node_index": str(index),
            "input_type_shape": [{"float": [3, 4]}, {"float": [4, 2]}],
            "output_type_shape": [{"float": [3, 2]}],
        },
    }


def operators(*events: dict[str, Any], skipped: int = 0) -> list[dict[str, Any]]:
    return list_operators(json.dumps(list(events)), skipped)


# A run begins 100 us after the other: node 0 takes 9, 3, 5 us and node 1 takes 1, 2, 1.
PROFILE = [
    event
    for place, (first, second) in enumerate([(9, 1), (3, 2), (5, 1)])
    for event in (run(100 * place, 50), node(0, 100 * place + 1, first), node(1, 100 * place + 20, second))
]


def test_a_time_is_the_median_of_the_runs() -> None:
    """Of 9, 3 and 5 us it is 5; with the first run left out, of 3 and 5, it is 4."""
    assert [each["us"] for each in operators(*PROFILE)] == [5.0, 1.0]
    assert [each["us"] for each in operators(*PROFILE, skipped=1)] == [4.0, 1.5]


def test_an_operator_has_its_name_type_place_and_shapes() -> None:
    """All that the runtime says of a node is kept, and nothing of it is another node's."""
    first, _ = operators(*PROFILE)
    assert first == {
        "name": "node0", "type": "Conv", "provider": CPU, "us": 5.0, "inputs": [[3, 4], [4, 2]], "outputs": [[3, 2]],
    }  # fmt: skip


def test_what_runs_several_times_in_a_run_is_summed() -> None:
    """A node that runs twice in each of two runs takes both times together."""
    events = [run(0, 50), node(0, 1, 3), node(0, 10, 4), run(100, 50), node(0, 101, 5), node(0, 110, 6)]
    assert [each["us"] for each in operators(*events)] == [9.0]  # of 7 and 11


def test_a_body_is_counted_with_its_loop() -> None:
    """Nodes that run inside of another, which has their time, are left out; the one behind it is not."""
    events = [run(0, 50), node(7, 1, 20, kind="Loop"), node(0, 2, 5), node(1, 8, 6), node(8, 21, 3)]
    assert [(each["type"], each["us"]) for each in operators(*events)] == [("Loop", 20.0), ("Conv", 3.0)]


def test_what_ran_before_the_runs_does_not_count() -> None:
    """A runtime may run nodes while it loads a model."""
    assert [each["us"] for each in operators(node(0, 1, 30), run(100, 50), node(0, 110, 4))] == [4.0]


def test_numbers_that_differ_from_session_to_session_are_no_part_of_a_name() -> None:
    """onnxruntime calls the second change of layout ReorderOutput_token_7, or another number."""
    events = [run(0, 50), node(0, 1, 1, name="Reorder_token_7"), node(1, 5, 1, name="Reorder_token_19")]
    assert [each["name"] for each in operators(*events)] == ["Reorder", "Reorder"]


@pytest.mark.parametrize("key", ["ts", "dur"])
@pytest.mark.parametrize("value", [None, "12", True, 1.5, -1, 10**19, [], {}])
def test_a_time_that_is_no_number_is_refused(key: str, value: object) -> None:
    """Nothing is taken for a number that is none, or that no clock gives."""
    for broken in ({**node(0, 1, 1), key: value}, {**run(0, 50), key: value}):
        with pytest.raises(ProfileError, match=f"no number '{key}'"):
            operators(run(0, 50), broken)


@pytest.mark.parametrize("key", ["op_name", "provider", "node_index"])
@pytest.mark.parametrize("value", [None, 3, [], {}])
def test_a_node_without_its_words_is_refused(key: str, value: object) -> None:
    """What lacks its type, provider or index, or has something else in its place, is named."""
    broken = node(0, 1, 1, name="stem")
    broken["args"][key] = value
    with pytest.raises(ProfileError, match="no index, type or provider of node 'stem'"):
        operators(run(0, 50), broken)
    del broken["args"]
    with pytest.raises(ProfileError, match="stem"):
        operators(run(0, 50), broken)


@pytest.mark.parametrize(
    "shapes",
    [[{"float": "3x4"}], [{"float": [3, -1]}], [{"float": [3, None]}], [{"float": [1] * 33}], [{"a": [1]}] * 257],
)
def test_shapes_are_lists_of_sizes(shapes: list[Any]) -> None:
    """Negative sizes, words, too many dimensions and too many shapes are refused."""
    broken = node(0, 1, 1)
    broken["args"]["input_type_shape"] = shapes
    with pytest.raises(ProfileError):
        operators(run(0, 50), broken)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "{}", "3", '"[]"', "[]", "[NaN]", f"[{'9' * 100_000}]"])
def test_a_text_that_is_no_profile_is_refused(text: str) -> None:
    """No JSON, no list, no event, nested without end, a number without end: a message says so, quickly."""
    with pytest.raises(ProfileError):
        list_operators(text)


def test_a_profile_of_too_many_operators_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the limit are not listed in part."""
    monkeypatch.setattr(onnxruntime_profile, "MAX_OPERATORS", 2)
    events = [run(0, 50), *(node(index, 10 * index, 1) for index in range(3))]
    assert len(operators(*events[:3])) == 2
    with pytest.raises(ProfileError, match="3 operators, more than 2"):
        operators(*events)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size decides before anything is read."""
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(PROFILE))
    assert len(read_operators(file, 0)) == 2
    monkeypatch.setattr(onnxruntime_profile, "MAX_PROFILE_BYTES", 100)
    with pytest.raises(ProfileError, match="bytes, more than 100"):
        read_operators(file, 0)


@given(st.lists(JSON, max_size=4), st.integers(0, 2))
def test_nothing_else_is_raised(values: list[Any], skipped: int) -> None:
    """Whatever stands among the events, the answer is a list of operators or a ProfileError."""
    try:
        found = list_operators(json.dumps([*PROFILE, *values]), skipped)
    except ProfileError:
        return
    assert [each["name"] for each in found] == ["node0", "node1"]


@given(st.sampled_from(PROFILE), st.sampled_from(["ts", "dur", "name", "cat", "args"]), JSON)
def test_changed_events_give_operators_or_an_error(event: dict[str, Any], key: str, value: object) -> None:
    """One value of one event is changed to anything; times stay finite and are never below zero."""
    events = [{**each, key: value} if each is event else each for each in PROFILE]
    try:
        found = operators(*events)
    except ProfileError:
        return
    assert all(0 <= each["us"] < 2**53 for each in found)
