"""Why a check is not ok, and what a reader of it should know, in words. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgenas.profilers.measure.measurement import MAX_PROBE_DEVIATION
from edgenas.profilers.measure.result import MeasurementResult
from edgenas.regression.baseline import Baseline
from edgenas.regression.findings import count_unsteady
from edgenas.regression.fingerprint import SYSTEM, compare_fields, read_fingerprint
from edgenas.regression.limits import Limit
from edgenas.regression.outcome import Finding
from edgenas.regression.rounds import MAX_SECONDS, SECONDS, Round
from edgenas.regression.statistics import fewest_values
from edgenas.units import format_change

_LONGEST_SECONDS = 600  # that is suggested
_NARROW = 0.05  # of an interval on the side of the limit


def describe_lost_rounds(rounds: Sequence[Round], lost: str, limits: Sequence[Limit]) -> list[str]:
    """Return why no measured limit can be told: a lost device, or rejected rounds."""
    if not limits:
        return []
    if lost or not rounds:
        return [lost or "nothing was measured; try again"]
    return [_describe_rejected_rounds(rounds)] if _are_mostly_rejected(rounds) else []


def describe_unmeasured_memory(rounds: Sequence[Round], limits: Sequence[Limit]) -> list[str]:
    """Return why a limit of the memory cannot be told, where the device does not measure it."""
    measured = [one for each in rounds for one in each.measurements]
    if all(limit.is_known_in(measured) for limit in limits):
        return []
    why = next(one.memory_reason for one in measured if one.peak_bytes is None) or "the device does not say"
    return [f"peak memory is not measured ({why}); leave out --memory"]


def _are_mostly_rejected(rounds: Sequence[Round]) -> bool:
    return 2 * sum(each.is_rejected for each in rounds) > len(rounds)


def _describe_rejected_rounds(rounds: Sequence[Round]) -> str:
    rejected = [one for each in rounds for one in each.measurements if one.is_rejected]
    reasons = dict.fromkeys(reason for one in rejected for reason in one.validity.reasons)
    return f"{sum(each.is_rejected for each in rounds)} of {count_rounds(len(rounds))} rejected: {'; '.join(reasons)}"


def describe_findings(findings: Sequence[Finding], rounds: Sequence[Round]) -> list[str]:
    """Return why the outcome is not ok, a line for each limit that decided it."""
    regressed = [one for one in findings if one.outcome == "regressed"]
    undecided = [one for one in findings if one.outcome == "not measurable"]
    return [_describe_finding(one, rounds) for one in regressed or undecided]


def _describe_finding(finding: Finding, rounds: Sequence[Round]) -> str:
    limit, (low, high) = finding.limit, finding.interval
    name = "size of the file" if limit.quantity == "size" else limit.quantity
    if finding.outcome == "regressed":
        if limit.is_relative:
            return f"the {name} changed by {_format_interval(finding)}; at most {limit.text} is allowed"
        return f"the {name} is {limit.format_cost(finding.now)}, surely above {limit.text}"
    seconds = rounds[-1].seconds
    if not (low > 0 and math.isfinite(high)):
        needed = math.ceil(1.2 * fewest_values() * seconds / len(rounds))
        allow = f"allow more time: --seconds {needed}" if needed <= MAX_SECONDS else "run the model for less time"
        return (
            f"{count_rounds(len(rounds))} in {seconds:.1f} s {'is' if len(rounds) == 1 else 'are'} too few to tell the"
            f" {name}, it takes {fewest_values()} or more; {allow}"
        )
    if limit.is_latency_budget and low > 1:
        return (
            f"the latency is {limit.format_cost(finding.now)}, above {limit.text}, but the speed of the CPU was over"
            f" {MAX_PROBE_DEVIATION:.0%} off in {count_unsteady(rounds)} of {len(rounds)} processes;"
            " stop other programs, or measure on a quieter device"
        )
    what = f"changed by {_format_interval(finding)}" if limit.is_relative else f"is {limit.format_cost(finding.now)}"
    told = f"the {name} {what}, which {seconds:.0f} s of measuring cannot tell from {limit.text}"
    return f"{told}; {_suggest_remedy(finding, seconds)}"


def _suggest_remedy(finding: Finding, seconds: float) -> str:
    """Return what would decide: more time, where the interval narrows with its root, or another limit."""
    limit = math.log(finding.limit.value) if finding.limit.is_relative else 0.0
    middle, low, high = math.log(finding.ratio), *map(math.log, finding.interval)
    distance = abs(middle - limit)
    width = middle - low if middle > limit else high - middle
    needed = seconds * (width / distance) ** 2 * 1.5 if distance else math.inf
    if needed <= _LONGEST_SECONDS:
        return f"allow more time (about --seconds {math.ceil(needed / 10) * 10}), or measure on a quieter device"
    if width < _NARROW:
        return "it is too near to the limit: allow more, or less"
    more_time = f"allow more time (--seconds {SECONDS:g}), or " if seconds < SECONDS / 2 else ""
    return f"the rounds differ too much: {more_time}stop other programs, or measure on a quieter device"


def _format_interval(finding: Finding) -> str:
    low, high = finding.interval
    if low == high:
        return format_change(finding.ratio)
    return f"{format_change(finding.ratio)} (95%: {format_change(low)} to {format_change(high)})"


def count_rounds(number: int) -> str:
    """Return a number of rounds as text: ``1 round``, ``8 rounds``."""
    return f"{number} round{'s' * (number != 1)}"


def describe_conditions(rounds: Sequence[Round], baseline: Baseline | None) -> list[str]:
    """Return what a reader should know of the conditions although it did not change the outcome.

    With a baseline, that includes what has changed of the system since it was recorded.
    """
    if not rounds:
        return []
    warnings = []
    if baseline is not None:
        then, now = (read_fingerprint(one) for one in (baseline.measurements[0], rounds[0].new))
        changed = compare_fields(then, now, SYSTEM)
        warnings += [f"{each}; what was measured now has it in common" for each in changed]
    if any(each.is_rejected for each in rounds) and not _are_mostly_rejected(rounds):  # else it is the reason
        warnings.append(_describe_rejected_rounds(rounds))
    counted = [each.new for each in rounds if not each.is_rejected]
    if counted:
        validity = MeasurementResult(tuple(counted)).validity
        warnings += [] if validity.status == "valid" and not validity.reasons else [f"validity: {validity}"]
    return warnings
