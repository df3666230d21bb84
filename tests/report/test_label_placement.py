"""Free places for labels."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgenas.report.label_placement import choose_label_centres, sample_line

FRAME = (0.0, 0.0, 1000.0, 600.0)
NONE = np.empty((0, 2))
INSIDE = st.tuples(st.floats(0, 1000), st.floats(0, 600))


@given(st.lists(INSIDE, min_size=1, max_size=4))
def test_labels_stay_inside_and_apart(anchors: list[tuple[float, float]]) -> None:
    """Wherever up to four things lie, also at one place, their labels are in the frame and do not overlap."""
    sizes = np.array([[120.0, 50.0]] * len(anchors))
    centres = choose_label_centres(np.array(anchors), sizes, NONE, FRAME)
    assert (centres - sizes / 2 >= FRAME[:2]).all()
    assert (centres + sizes / 2 <= FRAME[2:]).all()
    for i, one in enumerate(centres):
        for other in centres[:i]:
            assert (np.abs(one - other) >= (120, 50)).any()


@given(INSIDE)
def test_a_label_does_not_cover_what_it_names(anchor: tuple[float, float]) -> None:
    """The place named is never under its own label."""
    centre = choose_label_centres(np.array([anchor]), np.array([[120.0, 50.0]]), NONE, FRAME)[0]
    assert (np.abs(centre - anchor) > (60, 25)).any()


def test_a_free_place_is_preferred_to_a_near_one() -> None:
    """With all that is near covered by points, the label goes farther, where there are none."""
    x, y = np.meshgrid(np.arange(400, 600, 10.0), np.arange(200, 400, 10.0))
    points = np.column_stack([x.ravel(), y.ravel()])
    centre = choose_label_centres(np.array([[560.0, 300.0]]), np.array([[80.0, 40.0]]), points, FRAME)[0]
    assert not (np.abs(points - centre) < (40, 20)).all(axis=1).any()
    assert centre[0] > 600


def test_no_line_leads_through_another_label() -> None:
    """Of three things at one place, each label can be reached in a straight line past the others."""
    anchor, size = np.array([500.0, 300.0]), np.array([120.0, 50.0])
    centres = choose_label_centres(np.array([anchor] * 3), np.array([size] * 3), NONE, FRAME)
    for i, centre in enumerate(centres):
        line = anchor + np.linspace(0, 1, 200)[:, None] * (centre - anchor)
        for other in np.delete(centres, i, axis=0):
            assert not (np.abs(line - other) < size / 2).all(axis=1).any()


def test_no_labels_have_no_places() -> None:
    """Nothing to name gives an empty list of places."""
    assert choose_label_centres(NONE, NONE, NONE, FRAME).shape == (0, 2)


def test_a_line_becomes_points_without_large_gaps() -> None:
    """From (0, 0) by (10, 0) to (10, 5) with steps of at most 4: 3 steps of 3.33, then 2 of 2.5."""
    points = sample_line(np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 5.0]]), 4)
    expected = [[0.0, 0.0], [10 / 3, 0.0], [20 / 3, 0.0], [10.0, 0.0], [10.0, 2.5], [10.0, 5.0]]
    assert np.allclose(points, expected)
