"""Similarities of parts: how much a measurement of one part says about the cost of another.

Each similarity is a covariance (P, P) with ones on its diagonal. Marginal likelihood decides which matter on a device.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence

import numpy as np

from edgenas.costs import Vector
from edgenas.space import Part


def part_similarities(parts: Sequence[Part]) -> dict[str, Vector]:
    """Return the similarities of parts, each (P, P), by name.

    ``own`` is of each part with itself alone. ``shape`` is of parts with the same layers: a Gaussian kernel of the
    binary logarithms of their sizes, with a length scale of one octave.
    """
    shape = np.zeros((len(parts), len(parts)))
    groups: dict[Hashable, list[int]] = {}
    for index, part in enumerate(parts):
        groups.setdefault(_layers(part), []).append(index)
    for rows in groups.values():
        sizes = np.log2([_sizes(parts[row]) for row in rows])
        squared_distance = np.square(sizes[:, None] - sizes).sum(axis=2)
        shape[np.ix_(rows, rows)] = np.exp(-0.5 * squared_distance)
    return {"all": np.ones((len(parts), len(parts))), "own": np.eye(len(parts)), "shape": shape}


def _layers(part: Part) -> Hashable:
    """Return the layers of a part without their sizes: their types, and which ones make the feature map smaller."""
    return tuple(
        (type(layer).__name__, layer.shape[1:] == layer.in_shape[1:])
        for layer in part.graph.layers
        if not layer.elementwise
    )


def _sizes(part: Part) -> list[float]:
    """Return the side of a part's output, its input channels, and the sizes of all its kernels."""
    kernels = (shape for shape in part.graph.weight_shapes.values() if len(shape) > 1)
    return [math.sqrt(math.prod(part.out_shape[1:])), part.in_shape[0], *itertools.chain(*kernels)]
