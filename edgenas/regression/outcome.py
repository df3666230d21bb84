"""Outcomes of a check, and what was found for each limit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from edgenas.errors import ExitCode
from edgenas.regression.limits import Limit

Outcome = Literal["ok", "regressed", "incomparable", "not measurable"]
Method = Literal["side by side", "stored samples", "budget only"]
EXIT_CODES: dict[Outcome, ExitCode] = {
    "ok": ExitCode.OK,
    "regressed": ExitCode.REGRESSED,
    "incomparable": ExitCode.INCOMPARABLE,
    "not measurable": ExitCode.NOT_MEASURABLE,
}


@dataclass(frozen=True)
class Finding:
    """What was found for one limit. Latencies in ms, memory and sizes in bytes.

    Attributes:
        limit: the limit.
        outcome: ok, regressed or not measurable; only this limit's.
        now: the median of the new model.
        then: the median of the baseline's model, measured now or stored; None without a baseline.
        ratio: of the new model's cost to the baseline's, the median over rounds; to the budget for a budget.
        interval: the ends of the ratio's 95% interval, 0 or infinite while rounds are too few.
        smallest_change: the smallest increase that would have shown, 0.021 for 2.1%; None while unknown.
    """

    limit: Limit
    outcome: Outcome
    now: float
    then: float | None
    ratio: float
    interval: tuple[float, float]
    smallest_change: float | None

    @property
    def is_lower(self) -> bool:
        """True where the model surely costs less than the baseline's."""
        return self.limit.is_relative and self.interval[1] < 1

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain JSON data; ends that are not known are null."""
        low, high = self.interval
        return {
            "quantity": self.limit.quantity,
            "limit": self.limit.text,
            "outcome": self.outcome,
            "now": self.now,
            "then": self.then,
            "unit": "ms" if self.limit.quantity == "latency" else "bytes",
            "ratio": self.ratio,
            "interval_95": [low if low > 0 else None, high if math.isfinite(high) else None],
            "smallest_change": self.smallest_change,
        }


def worst_outcome(outcomes: list[Outcome]) -> Outcome:
    """Return the outcome that counts of several: a proven regression before all that could not be told."""
    order: tuple[Outcome, ...] = ("regressed", "incomparable", "not measurable", "ok")
    return min(outcomes, key=order.index, default="ok")
