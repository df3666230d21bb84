"""What networks of one size have in common beside their parts, as a function of the sum of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from annotated_types import Interval, MinLen

from edgenas.costs import Vector
from edgenas.errors import UsageError
from edgenas.files import parse_dataclass

CURVE_KNOTS = 25


@dataclass(frozen=True, eq=False)
class Curve:
    """Sums become values: times exp of what lies at their binary logarithm, linear between ``knots`` (K,).

    Sums beyond the knots are taken times the factor of the nearest. ``logs`` (K,)
    are natural logarithms of factors.
    """

    knots: Vector
    logs: Vector

    def __call__(self, sums: Vector) -> Vector:
        """The values (N,) of sums (N,) above zero."""
        values: Vector = sums * np.exp(np.interp(np.log2(sums), self.knots, self.logs))
        return values

    def to_dict(self) -> dict[str, list[float]]:
        """The curve as plain data."""
        return {"knots": self.knots.tolist(), "logs": self.logs.tolist()}

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The inverse of ``to_dict``; raises UsageError for what is no curve."""
        found = parse_dataclass(_Plain, data, "curve")
        knots, logs = (np.array(each, dtype=np.float64) for each in (found.knots, found.logs))
        if len(knots) != len(logs) or (np.diff(knots) <= 0).any():
            raise UsageError(
                f"curve: must have as many logs ({len(logs)}) as knots ({len(knots)}), and these must rise"
            )
        return cls(knots, logs)


_Logarithm = Annotated[float, Interval(ge=-100, le=100)]


@dataclass(frozen=True)
class _Plain:
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    knots: Annotated[list[_Logarithm], MinLen(2)]
    logs: list[_Logarithm]


def interpolation_weights(at: Vector, knots: Vector) -> Vector:
    """How much each of the evenly spaced ``knots`` (K,) counts in a linear interpolation at each of (N,): (N, K)."""
    place = np.clip((at - knots[0]) / (knots[1] - knots[0]), 0, len(knots) - 1)
    return np.asarray(np.maximum(1 - np.abs(place[:, None] - np.arange(len(knots))), 0.0), dtype=np.float64)
