"""Free places for labels in a picture. All lengths and positions are pixels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float64]
Frame = tuple[float, float, float, float]

_PADDING = 8.0
_GAPS = (18.0, 26.0, 38.0, 56.0, 80.0, 110.0, 150.0, 200.0, 260.0, 340.0)
_DIRECTIONS = 16
_NO_SIZE = np.zeros(2)
_POINT_PENALTY, _OVERLAP_PENALTY, _OUTSIDE_PENALTY = 60.0, 1e6, 1e8  # against pixels of distance


def choose_label_centres(anchors: Pixels, sizes: Pixels, obstacles: Pixels, frame: Frame) -> Pixels:
    """Return centres for labels near their anchors, chosen greedily in the order given.

    Candidates lie in 16 directions and at growing distances. The best one lies
    within the frame, overlaps no earlier label, covers few obstacles, is not
    cut off from its anchor by another label, and is near.

    Args:
        anchors: The points that the labels name, (N, 2).
        sizes: Widths and heights of the labels, (N, 2).
        obstacles: Points that labels should not cover, (M, 2).
        frame: Left, bottom, right and top of the allowed area.

    Returns:
        The centres, (N, 2).
    """
    avoided, label_points = np.concatenate([obstacles, anchors]), np.empty((0, 2))
    centres = np.empty((0, 2))
    for anchor, size in zip(anchors, sizes, strict=True):
        candidates, gaps = _candidate_centres_and_gaps(anchor, size)
        on_points = _count_overlapped_boxes(candidates, size, avoided, _NO_SIZE)
        on_points += _count_points_near_line(candidates, anchor, label_points)
        penalty = (
            gaps
            + _POINT_PENALTY * on_points
            + _OVERLAP_PENALTY * _count_overlapped_boxes(candidates, size, centres, sizes[: len(centres)])
            + _OUTSIDE_PENALTY * _outside_mask(candidates, size, frame)
        )
        centre = candidates[int(penalty.argmin())]
        centres = np.concatenate([centres, [centre]])
        label_points = np.concatenate([label_points, _points_on_label(centre, size)])
        avoided = np.concatenate([avoided, sample_line(np.array([anchor, centre]), _PADDING)])
    return centres


def sample_line(points: Pixels, step: float) -> Pixels:
    """Return points (M, 2) along the line through ``points`` (N, 2), at most ``step`` apart in x and in y."""
    pieces = [points[:1]]
    for start, end in pairwise(points):
        count = max(1, int(np.ceil(np.abs(end - start).max() / step)))
        pieces.append(start + (end - start) * (np.arange(1, count + 1) / count)[:, None])
    return np.concatenate(pieces)


def _candidate_centres_and_gaps(anchor: Pixels, size: Pixels) -> tuple[Pixels, Pixels]:
    """Return centres (K, 2) around an anchor, and the gaps (K,) between the anchor and the label's edge."""
    angles = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)
    towards = np.column_stack([np.cos(angles), np.sin(angles)])
    gaps = np.repeat(np.array(_GAPS), _DIRECTIONS)
    directions = np.tile(towards, (len(_GAPS), 1))
    # An ellipse around the anchor that touches a label beside it and one above it alike.
    return anchor + directions * (gaps[:, None] + size / 2), gaps


def _count_points_near_line(candidates: Pixels, anchor: Pixels, points: Pixels) -> npt.NDArray[np.int64]:
    """Count the points (M, 2) close to the line from the anchor to each candidate (K, 2), (K,)."""
    line = candidates[:, None] - anchor
    offset = points[None] - anchor
    share = np.clip((line * offset).sum(axis=2) / (line**2).sum(axis=2), 0, 1)
    close = np.hypot(*np.moveaxis(share[..., None] * line - offset, 2, 0)) < _PADDING
    counts: npt.NDArray[np.int64] = np.count_nonzero(close, axis=1)
    return counts


def _count_overlapped_boxes(candidates: Pixels, size: Pixels, centres: Pixels, sizes: Pixels) -> npt.NDArray[np.int64]:
    """Count the boxes at ``centres`` (M, 2) of ``sizes`` (M, 2) or (2,) that each candidate (K, 2) overlaps, (K,)."""
    distance = np.abs(candidates[:, None] - centres[None])
    counts: npt.NDArray[np.int64] = np.count_nonzero((distance < (size + sizes) / 2 + _PADDING).all(axis=2), axis=1)
    return counts


def _outside_mask(candidates: Pixels, size: Pixels, frame: Frame) -> npt.NDArray[np.bool_]:
    half = size / 2 + _PADDING
    left, bottom, right, top = frame
    inside: npt.NDArray[np.bool_] = np.all(
        (candidates - half >= (left, bottom)) & (candidates + half <= (right, top)), axis=1
    )
    return ~inside


def _points_on_label(centre: Pixels, size: Pixels) -> Pixels:
    """Return points (M, 2) all over a label, dense enough that no line passes between them unseen."""
    x, y = (np.linspace(-half, half, max(2, int(half / 3))) for half in size / 2)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    points: Pixels = centre + grid
    return points
