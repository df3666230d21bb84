"""Whether a measurement can be trusted, judged from what the device said before and after it. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

# The facts without which nobody can say that the device ran at full, steady speed.
NEEDED = ("governor", "frequency_khz", "temperature_c", "interrupted_share")
_SLOW_GOVERNORS = {"ondemand", "powersave", "conservative", "schedutil"}
_HEATING_C = 15.0
_MOST_INTERRUPTED = 0.2


@dataclass(frozen=True)
class Verdict:
    """``trusted``; ``unverified``, naming the facts that the device withholds; ``refused``, with reason and remedy."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    status: Literal["trusted", "unverified", "refused"]
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.status + (f" ({'; '.join(self.reasons)})" if self.reasons else "")


def judge(before: Mapping[str, Any], after: Mapping[str, Any]) -> Verdict:
    """The verdict on a measurement between two sets of conditions.

    Refused: a governor that changes the frequency; throttling, or heating up by
    more than 15 °C meanwhile; other programs that took the CPU from more than a
    fifth of the timed runs (from fewer, the median does not show it).
    """
    problems = [*_governor(before, after), *_heat(before, after), *_competition(after)]
    if problems:
        return Verdict("refused", tuple(problems))
    missing = [fact for fact in NEEDED if after.get(fact) is None]
    if missing:
        return Verdict("unverified", (f"the device does not give {', '.join(missing)}",))
    return Verdict("trusted")


def _governor(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    given = {name for facts in (before, after) for name in (facts.get("governor") or "").split(",")}
    slow = sorted(given & _SLOW_GOVERNORS)
    if not slow:
        return []
    return [f"governor is {', '.join(slow)}: run sudo cpupower frequency-set -g performance"]


def _heat(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    problems = []
    if _rise(before, after, "throttle_count") > 0:
        problems.append("the device throttled: cool it, then measure again")
    if _rise(before, after, "temperature_c") > _HEATING_C:
        problems.append(
            f"the device heated up from {before['temperature_c']:.0f} to {after['temperature_c']:.0f} °C:"
            " measure again now that it is warm, or cool it"
        )
    return problems


def _rise(before: Mapping[str, Any], after: Mapping[str, Any], fact: str) -> float:
    first, last = before.get(fact), after.get(fact)
    return 0.0 if first is None or last is None else float(last - first)


def _competition(after: Mapping[str, Any]) -> list[str]:
    share = after.get("interrupted_share")
    if share is None or share <= _MOST_INTERRUPTED:
        return []
    return [f"other programs interrupted {share:.0%} of its runs: stop them, then measure again"]
