"""Similarities of parts: how much a measurement of one part says about the cost of another.

Each similarity is a covariance (P, P) with ones on its diagonal: parts are similar that are equal in some properties
and near in the logarithms of others. Marginal likelihood decides which similarities matter on a device.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce

import numpy as np

from edgenas.costs import Vector
from edgenas.space import Part

_KIND = ("operator", "stride", "activation", "shortcut", "expand", "projected", "gated")
_SIZES = ("out_size", "in_channels", "out_channels", "mid_channels", "kernel")


def part_similarities(parts: Sequence[Part]) -> dict[str, Vector]:
    """Return the similarities of parts, each (P, P), by name."""
    compare = _PartComparison(parts)
    place = compare.equality_matrix("out_channels", *_KIND)
    near = compare.gaussian_kernel("out_size", 0.7) * compare.gaussian_kernel("mid_channels", 0.7)
    return {
        "all": np.ones((len(parts), len(parts))),
        "own": np.eye(len(parts)),
        "other resolutions": compare.equality_matrix("in_channels", "out_channels", "mid_channels", "kernel", *_KIND)
        * compare.gaussian_kernel("out_size", 0.5),
        "place": place * near,
        "place and kernel": place * compare.equality_matrix("kernel") * near,
        "shape": compare.equality_matrix("operator", "gated", "stride")
        * reduce(operator.mul, (compare.gaussian_kernel(name, 1.0) for name in _SIZES)),
        "middle channels": compare.equality_matrix("operator", "mid_channels"),
        "kernel": compare.equality_matrix("operator", "kernel") * compare.gaussian_kernel("out_size", 1.0),
        "size": compare.equality_matrix("operator") * compare.gaussian_kernel("out_size", 0.1),
    }


class _PartComparison:
    """Properties of parts as vectors (P,), compared pairwise."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts

    def equality_matrix(self, *names: str) -> Vector:
        """Return 1 where all of these properties are equal, else 0."""
        keys = [tuple(_part_property(part, name) for name in names) for part in self._parts]
        number = {key: index for index, key in enumerate(dict.fromkeys(keys))}
        codes = np.array([number[key] for key in keys])
        same: Vector = (codes[:, None] == codes).astype(np.float64)
        return same

    def gaussian_kernel(self, name: str, octaves: float) -> Vector:
        """Return a Gaussian kernel of a property's binary logarithm with a length scale of ``octaves``."""
        values: Vector = np.log2([max(float(_part_property(part, name)), 1.0) for part in self._parts])
        distance = values[:, None] - values
        return np.asarray(np.exp(-0.5 * (distance / octaves) ** 2), dtype=np.float64)


def _part_property(part: Part, name: str) -> float | str:
    value: float | str = part.se_channels > 0 if name == "gated" else getattr(part, name)
    return value
