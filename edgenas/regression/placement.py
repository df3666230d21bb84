"""Where the operators of a model ran, and which of them left their execution provider or delegate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgenas.profilers import Operator, OperatorProfile
from edgenas.regression.alignment import Pair, align_operators

_CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class MovedOperator:
    """An operator that runs elsewhere now.

    Attributes:
        name: its name now.
        type: its type now.
        before: the execution provider or delegate that ran it; None where it is new.
        after: that which runs it now.
    """

    name: str
    type: str
    before: str | None
    after: str


@dataclass(frozen=True)
class PlacementComparison:
    """Where the operators of two models, or of one model on two targets, ran.

    Attributes:
        before: number of operators by execution provider or delegate.
        after: the same of the second.
        left: operators that left their provider for one that the profile names later, as the CPU; and new ones on a
            provider that no operator ran on before.
        returned: operators that run on an earlier provider now.

    Providers of different runtimes are not compared: nothing left or returned.
    """

    before: Mapping[str, int]
    after: Mapping[str, int]
    left: tuple[MovedOperator, ...] = ()
    returned: tuple[MovedOperator, ...] = ()

    @property
    def is_regression(self) -> bool:
        """True where operators left their provider: a regression of its own kind, also when nothing is slower."""
        return bool(self.left)

    @property
    def moves(self) -> str:
        """How many operators moved, in words; empty where none did."""
        return " and ".join(
            f"{len(moved)} {'operator' if len(moved) == 1 else 'operators'} {verb} {where}"
            for moved, verb, where in (
                (self.left, "left", "their provider"),
                (self.returned, "went", "to a provider named earlier"),
            )
            if moved
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {**asdict(self), "is_regression": self.is_regression}

    def __str__(self) -> str:
        ran, runs = format_counts(self.before), format_counts(self.after)
        return f"{self.moves or 'no operator moved'}: before {ran}, after {runs}"


def compare_placements(before: OperatorProfile, after: OperatorProfile) -> PlacementComparison:
    """Compare where the operators of two profiles ran.

    Args:
        before: the operators of a model that is known to be well placed.
        after: those of the other model, or of the same one elsewhere.
    """
    return place_pairs(before, after, align_operators(before.operators, after.operators))


def place_pairs(before: OperatorProfile, after: OperatorProfile, pairs: Sequence[Pair]) -> PlacementComparison:
    """Compare where the operators of pairs ran; see ``compare_placements``."""
    counts = count_by_provider(before.operators)
    left: list[MovedOperator] = []
    returned: list[MovedOperator] = []
    for old, new in pairs:
        if new is None or before.target["runtime"] != after.target["runtime"]:
            continue
        operator = after.operators[new]
        provider = None if old is None else before.operators[old].provider
        usual = list(counts) if provider is None else [provider]
        if operator.provider in usual:
            continue
        is_worse = _rank(operator.provider, after) > min(_rank(each, before) for each in usual)
        (left if is_worse else returned).append(
            MovedOperator(operator.name, operator.type, provider, operator.provider)
        )
    return PlacementComparison(counts, count_by_provider(after.operators), tuple(left), tuple(returned))


def can_leave(operators: Sequence[Operator]) -> bool:
    """Return whether any operator could leave its provider: the CPU is the last place, so none can leave it."""
    return any(operator.provider != _CPU for operator in operators)


def count_by_provider(operators: Sequence[Operator]) -> dict[str, int]:
    """Return the number of operators by the execution provider or delegate that ran them."""
    return dict(Counter(operator.provider for operator in operators))


def _rank(provider: str, profile: OperatorProfile) -> int:
    """Return the place of a provider in the profile's order; a delegate comes before all, the CPU last."""
    providers = list(profile.target["providers"])
    if provider == _CPU:
        return len(providers)
    return providers.index(provider) if provider in providers else -1


def format_counts(counts: Mapping[str, int]) -> str:
    """Return numbers of operators by provider as text: ``XNNPACK (14), CPUExecutionProvider (2)``."""
    return ", ".join(f"{provider} ({number})" for provider, number in counts.items())
