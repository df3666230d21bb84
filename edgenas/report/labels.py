"""Finding free places for labels in a picture. All lengths and positions are pixels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float64]
Frame = tuple[float, float, float, float]

_PADDING = 8.0
_GAPS = (18.0, 26.0, 38.0, 56.0, 80.0, 110.0, 150.0, 200.0, 260.0, 340.0)
_DIRECTIONS = 16
_COVERED, _OVERLAPPING, _OUTSIDE = 60.0, 1e6, 1e8


def place_labels(anchors: Pixels, sizes: Pixels, obstacles: Pixels, frame: Frame) -> Pixels:
    """Centres (N, 2) of labels of ``sizes`` (N, 2) near what they name at ``anchors`` (N, 2).

    Greedy, in order: of places in 16 directions and growing distance, one in
    ``frame`` (left, bottom, right, top) that overlaps no label before it; of
    these the one that covers the fewest ``obstacles`` (M, 2), is not cut off from
    its anchor by another label, and is nearest.
    """
    taken, labels = np.concatenate([obstacles, anchors]), np.empty((0, 2))
    centres = np.empty((0, 2))
    for anchor, size in zip(anchors, sizes, strict=True):
        candidates, gaps = _candidates(anchor, size)
        penalty = (
            gaps
            + _COVERED * (_covered(candidates, size, taken) + _crossed(candidates, anchor, labels))
            + _OVERLAPPING * _overlapped(candidates, size, centres, sizes[: len(centres)])
            + _OUTSIDE * _outside(candidates, size, frame)
        )
        centre = candidates[int(penalty.argmin())]
        centres = np.concatenate([centres, [centre]])
        labels = np.concatenate([labels, _fill(centre, size)])
        taken = np.concatenate([taken, sample_line(np.array([anchor, centre]), _PADDING)])
    return centres


def sample_line(points: Pixels, step: float) -> Pixels:
    """Points (M, 2) on the line through ``points`` (N, 2), at most ``step`` apart: a line as obstacles."""
    pieces = [points[:1]]
    for start, end in pairwise(points):
        count = max(1, int(np.ceil(np.abs(end - start).max() / step)))
        pieces.append(start + (end - start) * (np.arange(1, count + 1) / count)[:, None])
    return np.concatenate(pieces)


def _candidates(anchor: Pixels, size: Pixels) -> tuple[Pixels, Pixels]:
    """Centres (K, 2) around an anchor, the label's edge a gap away from it, and the gaps (K,)."""
    angles = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)
    towards = np.column_stack([np.cos(angles), np.sin(angles)])
    gaps = np.repeat(np.array(_GAPS), _DIRECTIONS)
    directions = np.tile(towards, (len(_GAPS), 1))
    # An ellipse around the anchor that touches a label beside it and one above it alike.
    return anchor + directions * (gaps[:, None] + size / 2), gaps


def _covered(candidates: Pixels, size: Pixels, points: Pixels) -> npt.NDArray[np.int64]:
    """How many points (M, 2) each candidate (K, 2) covers."""
    off = np.abs(candidates[:, None] - points[None])
    covered: npt.NDArray[np.int64] = np.count_nonzero((off < size / 2 + _PADDING).all(axis=2), axis=1)
    return covered


def _crossed(candidates: Pixels, anchor: Pixels, labels: Pixels) -> npt.NDArray[np.int64]:
    """How many points of labels (M, 2) lie close to the line from the anchor to each candidate (K, 2)."""
    line = candidates[:, None] - anchor
    offset = labels[None] - anchor
    share = np.clip((line * offset).sum(axis=2) / (line**2).sum(axis=2), 0, 1)
    close = np.hypot(*np.moveaxis(share[..., None] * line - offset, 2, 0)) < _PADDING
    crossed: npt.NDArray[np.int64] = np.count_nonzero(close, axis=1)
    return crossed


def _overlapped(candidates: Pixels, size: Pixels, centres: Pixels, sizes: Pixels) -> npt.NDArray[np.int64]:
    """How many labels at ``centres`` (M, 2) of ``sizes`` (M, 2) each candidate (K, 2) overlaps."""
    off = np.abs(candidates[:, None] - centres[None])
    overlapped: npt.NDArray[np.int64] = np.count_nonzero((off < (size + sizes) / 2 + _PADDING).all(axis=2), axis=1)
    return overlapped


def _outside(candidates: Pixels, size: Pixels, frame: Frame) -> npt.NDArray[np.bool_]:
    half = size / 2 + _PADDING
    left, bottom, right, top = frame
    inside: npt.NDArray[np.bool_] = np.all(
        (candidates - half >= (left, bottom)) & (candidates + half <= (right, top)), axis=1
    )
    return ~inside


def _fill(centre: Pixels, size: Pixels) -> Pixels:
    """Points (M, 2) all over a label, dense enough that no other fits between them."""
    x, y = (np.linspace(-half, half, max(2, int(half / 3))) for half in size / 2)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    filled: Pixels = centre + grid
    return filled
