"""What a model may cost: limits relative to a baseline, as +5%, and budgets, as 15ms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgenas.errors import UsageError
from edgenas.profilers import Measurement
from edgenas.units import format_bytes, format_change, format_ms, parse_bytes, parse_ms, parse_percent

Quantity = Literal["latency", "memory", "size"]
QUANTITIES: tuple[Quantity, ...] = ("latency", "memory", "size")
DEFAULT_LATENCY = "+5%"


@dataclass(frozen=True)
class Limit:
    """The most that a model may cost.

    Attributes:
        quantity: latency, peak memory or size of the file.
        text: as the user gave it: ``+5%``, ``15ms``.
        value: the factor of the baseline's cost, 1.05 for +5%; or the budget in ms or bytes.
        is_relative: whether it is a factor.
    """

    quantity: Quantity
    text: str
    value: float
    is_relative: bool

    @classmethod
    def parse(cls, quantity: Quantity, text: str) -> Limit:
        """Return the limit of a text; UsageError for one that is neither a percentage nor a quantity with unit."""
        name = f"{quantity} limit"
        if text.strip().endswith("%"):
            return cls(quantity, text.strip(), 1 + parse_percent(text, name), True)
        try:
            value = parse_ms(text, name) if quantity == "latency" else float(parse_bytes(text, name))
        except UsageError as error:
            raise UsageError(f"{error}, or +5% for at most 5% above the baseline") from None
        return cls(quantity, text.strip(), value, False)

    @property
    def needs_size_before(self) -> bool:
        """True for a limit relative to the size of the baseline's model."""
        return self.quantity == "size" and self.is_relative

    def is_known_in(self, measurements: Iterable[Measurement]) -> bool:
        """Return true where the measurements have the quantity; some devices do not tell the memory."""
        return self.quantity != "memory" or all(one.peak_bytes is not None for one in measurements)

    @property
    def is_latency_budget(self) -> bool:
        """True for a budget in ms."""
        return self.quantity == "latency" and not self.is_relative

    def format_ratio(self, ratio: float) -> str:
        """Return a cost as a change of the baseline's, ``+2.1%``, or as a part of the budget, ``97.3%``."""
        return format_change(ratio) if self.is_relative else f"{ratio:.1%}"

    def format_cost(self, value: float) -> str:
        """Return a cost of this quantity as text."""
        return format_ms(value) if self.quantity == "latency" else format_bytes(value)


def parse_limits(texts: Mapping[Quantity, Sequence[str]], has_baseline: bool) -> tuple[Limit, ...]:
    """Return the limits of texts by quantity; with a baseline, its latency has one in any case, by default +5%.

    Raises:
        UsageError: a text is no limit, or is relative without a baseline, or there is none at all.
    """
    if has_baseline and not texts.get("latency"):
        texts = {**texts, "latency": (DEFAULT_LATENCY,)}
    limits = tuple(Limit.parse(quantity, text) for quantity in QUANTITIES for text in texts.get(quantity, ()))
    relative = next((limit for limit in limits if limit.is_relative), None)
    if relative is not None and not has_baseline:
        budget = "15ms" if relative.quantity == "latency" else "64MB"
        raise UsageError(
            f"{relative.quantity} limit {relative.text!r} is relative to a baseline; give one with --baseline,"
            f" or a budget such as {budget}"
        )
    if not limits:
        raise UsageError("a check needs a limit; give --baseline, or a budget such as --latency 15ms")
    return limits


def as_texts(value: Any) -> tuple[str, ...]:
    """Return the texts of one text, several, or none."""
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)
