"""Dominated rows, and fronts as files."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.errors import FormatError, RunError, UsageError
from edgenas.files import write_document
from edgenas.search import Front, hypervolume, nondominated_mask
from edgenas.search.pareto import FRONT_SCHEMA
from edgenas.space import MobileNetV3

_COSTS = st.integers(1, 3).flatmap(
    lambda objectives: st.lists(
        st.lists(st.integers(-2, 3), min_size=objectives, max_size=objectives), min_size=1, max_size=30
    )
)


def _beats(one: list[int], other: list[int]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@given(_COSTS)
def test_what_is_kept_is_beaten_by_no_row(costs: list[list[int]]) -> None:
    """The mask equals that of comparing every row with every other."""
    expected = [not any(_beats(other, row) for other in costs) for row in costs]
    assert nondominated_mask(np.array(costs, dtype=np.float64)).tolist() == expected


def test_a_front_by_hand() -> None:
    """(3, 3) is beaten by (2, 2), (1, 5) by (1, 4); equal rows are both kept."""
    costs = np.array([[1, 4], [2, 2], [3, 3], [4, 1], [1, 5], [2, 2]], dtype=np.float64)
    assert nondominated_mask(costs).tolist() == [True, True, False, True, False, True]


def test_a_front_comes_back_from_its_file(make_front: Callable[..., Front], tmp_path: Path, tiny: MobileNetV3) -> None:
    """Saved and loaded, a front has the same bits, and saving it again gives the same bytes."""
    front = make_front((0.9, 1 / 3, 1e6), (0.95, 2 / 3, 2e6))
    path, again = tmp_path / "front.json", tmp_path / "again.json"
    front.save(path)
    loaded = Front.load(path, tiny)
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()
    for field in ("genes", "accuracy", "latency_ms", "peak_bytes"):
        assert np.array_equal(getattr(loaded, field), getattr(front, field))
    assert (loaded.target, loaded.evaluations, loaded.inputs_digest) == ("localhost", 320, "abc")
    assert len(loaded) == 2


def test_an_empty_front_is_refused(make_front: Callable[..., Front]) -> None:
    """A front of no architecture cannot be made."""
    front = make_front((0.9, 1.5, 1e6))
    with pytest.raises(UsageError, match="a front must have at least one architecture"):
        dataclasses.replace(front, genes=front.genes[:0])


def test_a_front_of_version_2_is_read(make_front: Callable[..., Front], tmp_path: Path, tiny: MobileNetV3) -> None:
    """A front from before there were other objectives has its three costs, all of them objectives."""
    front = make_front((0.9, 1.5, 1e6), (0.95, 2.5, 1e6))
    body = {
        "inputs_digest": "abc", "space": tiny.short_hash, "target": "localhost", "evaluations": 320, "source": "",
        "architectures": [each.id for each in front.architectures()], "accuracy": [0.9, 0.95],
        "latency_ms": [1.5, 2.5], "peak_bytes": [1e6, 1e6],
    }  # fmt: skip
    write_document(tmp_path / "front.json", "front", 2, body)
    loaded = Front.load(tmp_path / "front.json", tiny)
    assert (loaded.objectives, loaded.strategy, loaded.measured) == (
        ("accuracy", "latency_ms", "peak_bytes"),
        "nsga2",
        (),
    )
    assert loaded.latency_ms.tolist() == [1.5, 2.5]
    assert (loaded.limits, loaded.history) == ({}, ())


def test_a_cost_that_a_front_has_not_is_named(make_front: Callable[..., Front]) -> None:
    """Asking for another cost lists those that there are."""
    with pytest.raises(UsageError, match="the front of localhost has no macs; it has accuracy, latency_ms, peak_bytes"):
        make_front((0.9, 1.5, 1e6))["macs"]


def test_hypervolume_by_hand() -> None:
    """In the box from (0, 0) to (4, 2), the points (1, 1) and (3, 0) dominate 4 of 8; one outside adds nothing."""
    points = np.array([[1.0, 1.0], [3.0, 0.0], [5.0, 0.0]])
    assert hypervolume(points, np.zeros(2), np.array([4.0, 2.0])) == pytest.approx((3 * 1 + 1 * 1) / 8)
    assert hypervolume(points[2:], np.zeros(2), np.array([4.0, 2.0])) == 0.0


def test_a_damaged_front_is_refused(make_front: Callable[..., Front], tmp_path: Path, tiny: MobileNetV3) -> None:
    """A front with a changed number is refused."""
    path = tmp_path / "front.json"
    make_front((0.9, 1.5, 1e6)).save(path)
    path.write_text(path.read_text().replace("0.9", "0.99"))
    with pytest.raises(FormatError, match=r"front\.json: is damaged"):
        Front.load(path, tiny)


def test_a_front_of_a_newer_schema_is_refused(
    make_front: Callable[..., Front], tmp_path: Path, tiny: MobileNetV3
) -> None:
    """A version that this edgenas does not know is refused with the remedy."""
    path = tmp_path / "front.json"
    make_front((0.9, 1.5, 1e6)).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 4}))
    with pytest.raises(FormatError, match="upgrade edgenas"):
        Front.load(path, tiny)


def test_a_front_of_another_space_is_refused(
    make_front: Callable[..., Front], tmp_path: Path, tiny: MobileNetV3
) -> None:
    """A front is only read for the space that it was searched in."""
    path = tmp_path / "front.json"
    make_front((0.9, 1.5, 1e6)).save(path)
    with pytest.raises(RunError, match=f"is of space {tiny.short_hash}"):
        Front.load(path, dataclasses.replace(tiny, classes=11))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latency_ms": [-1.0, 2.0]}, "values.latency_ms must be 0 or more"),
        ({"accuracy": [5.0, 0.5]}, "values.accuracy must be 0 or more, and at most 1"),
        ({"accuracy": [0.5]}, "values.accuracy must have one number for each of 2 subnets"),
        ({"latency_ms": [2.0, 1.0]}, "values.latency_ms must ascend"),
        ({"objectives": ["accuracy", "energy_mj"]}, "values must have energy_mj, which is an objective or limited"),
        ({"architectures": []}, "architectures: list should have at least 1 item after validation, not 0"),
        ({"target": "a\x1b[31m"}, "target: must be printable text"),
    ],
)
def test_a_signed_front_that_cannot_be_is_refused(
    make_front: Callable[..., Front], tmp_path: Path, tiny: MobileNetV3, change: dict[str, Any], message: str
) -> None:
    """A front with the right checksum and impossible values is refused, naming the value and the rule."""
    make_front((0.5, 1.0, 8e6), (0.7, 2.0, 9e6)).save(tmp_path / "front.json")
    body = FRONT_SCHEMA.read(tmp_path / "front.json")
    values = {**body["values"], **{name: change[name] for name in body["values"] if name in change}}
    others = {key: value for key, value in change.items() if key not in values}
    FRONT_SCHEMA.write(tmp_path / "front.json", {**body, **others, "values": values})
    with pytest.raises(FormatError, match=re.escape(message)):
        Front.load(tmp_path / "front.json", tiny)
