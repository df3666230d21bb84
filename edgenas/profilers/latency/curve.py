"""A smooth factor on sums of part costs that depends on the sum alone."""

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
    """A factor on sums: the exponential of a piecewise linear function of the sum's binary logarithm.

    Beyond the first and the last knot the factor is constant.

    Attributes:
        knots: Binary logarithms of sums (K,), ascending.
        logs: Natural logarithms of the factors there (K,).
    """

    knots: Vector
    logs: Vector

    def __call__(self, sums: Vector) -> Vector:
        """Return the values (N,) of sums (N,) above zero."""
        values: Vector = sums * np.exp(np.interp(np.log2(sums), self.knots, self.logs))
        return values

    def to_dict(self) -> dict[str, list[float]]:
        """Return the curve as plain data."""
        return {"knots": self.knots.tolist(), "logs": self.logs.tolist()}

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Return the curve of ``to_dict``; raise UsageError for other data."""
        parsed = parse_dataclass(_CurveData, data, "curve")
        knots, logs = (np.array(values, dtype=np.float64) for values in (parsed.knots, parsed.logs))
        if len(knots) != len(logs) or (np.diff(knots) <= 0).any():
            raise UsageError(
                f"curve: must have as many logs ({len(logs)}) as knots ({len(knots)}), and these must rise"
            )
        return cls(knots, logs)


_Logarithm = Annotated[float, Interval(ge=-100, le=100)]


@dataclass(frozen=True)
class _CurveData:
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    knots: Annotated[list[_Logarithm], MinLen(2)]
    logs: list[_Logarithm]


def interpolation_weights(points: Vector, knots: Vector) -> Vector:
    """Return the weights (N, K) of evenly spaced ``knots`` (K,) in linear interpolation at ``points`` (N,)."""
    positions = np.clip((points - knots[0]) / (knots[1] - knots[0]), 0, len(knots) - 1)
    return np.asarray(np.maximum(1 - np.abs(positions[:, None] - np.arange(len(knots))), 0.0), dtype=np.float64)
