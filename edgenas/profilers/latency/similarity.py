"""How alike two parts are: what a measurement of one says about the cost of the other.

Each similarity is a covariance (P, P) with ones on its diagonal: equal in some
properties, and nearer in the logarithms of others, is more alike. Which of
them matter on a device is not decided here but by marginal likelihood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgenas.costs import Vector
from edgenas.space import Part

_KIND = ("operator", "stride", "activation", "shortcut", "expand", "projected", "gated")
_NUMBERS = ("out_size", "in_channels", "out_channels", "mid_channels", "kernel")


def part_similarities(parts: Sequence[Part]) -> dict[str, Vector]:
    """By name, the similarities of parts, each (P, P)."""
    look = _Look(parts)
    place = look.equal("out_channels", *_KIND)
    near = look.near("out_size", 0.7) * look.near("mid_channels", 0.7)
    return {
        "all": np.ones((len(parts), len(parts))),
        "own": np.eye(len(parts)),
        "other resolutions": look.equal("in_channels", "out_channels", "mid_channels", "kernel", *_KIND)
        * look.near("out_size", 0.5),
        "place": place * near,
        "place and kernel": place * look.equal("kernel") * near,
        "shape": look.equal("operator", "gated", "stride") * _product(look, 1.0),
        "middle channels": look.equal("operator", "mid_channels"),
        "kernel": look.equal("operator", "kernel") * look.near("out_size", 1.0),
        "size": look.equal("operator") * look.near("out_size", 0.1),
    }


def _product(look: _Look, length: float) -> Vector:
    total = look.near(_NUMBERS[0], length)
    for name in _NUMBERS[1:]:
        total = total * look.near(name, length)
    return total


class _Look:
    """Properties of parts as vectors (P,), compared pairwise."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts

    def equal(self, *names: str) -> Vector:
        """One where all of these properties are equal, else zero."""
        keys = [tuple(_property(part, name) for name in names) for part in self._parts]
        number = {key: index for index, key in enumerate(dict.fromkeys(keys))}
        codes = np.array([number[key] for key in keys])
        same: Vector = (codes[:, None] == codes).astype(np.float64)
        return same

    def near(self, name: str, octaves: float) -> Vector:
        """Falls with the distance of a property on a logarithmic scale; ``octaves`` away it is 0.61."""
        values: Vector = np.log2([max(float(_property(part, name)), 1.0) for part in self._parts])
        distance = values[:, None] - values
        return np.asarray(np.exp(-0.5 * (distance / octaves) ** 2), dtype=np.float64)


def _property(part: Part, name: str) -> float | str:
    special = _SPECIAL.get(name)
    value: float | str = getattr(part, name) if special is None else special(part)
    return value


_SPECIAL: dict[str, Callable[[Part], float | str]] = {"gated": lambda part: part.se_channels > 0}
