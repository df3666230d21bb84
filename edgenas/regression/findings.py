"""From rounds to findings: the cost of the new model by each limit. Pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from edgenas.profilers import Measurement
from edgenas.profilers.measure.cpu_speed import measurement_with_probe_deviation, median_probe_ms
from edgenas.profilers.measure.statistics import median_of_medians_with_interval, ratio_interval
from edgenas.regression.limits import Limit
from edgenas.regression.model import ModelFacts
from edgenas.regression.outcome import Finding, Outcome
from edgenas.regression.rounds import Round
from edgenas.regression.statistics import MedianInterval, sequential_median_interval

_PAGE = 4096.0  # memory is counted in pages; a tiny model may need none
_ROUNDING = 1e-9  # of logarithms


def find_size(limit: Limit, now: int, then: int | None) -> Finding:
    """Return the finding for a limit of a file's size, which is known exactly."""
    assert then is not None or not limit.is_relative
    change = math.log(now / (then if limit.is_relative and then is not None else limit.value))
    return _make_finding(limit, MedianInterval(change, change, change), now, then)


def find_sizes(limits: Sequence[Limit], now: ModelFacts, then: ModelFacts | None) -> list[Finding]:
    """Return the findings for limits of the file's size; a baseline of an earlier version knows none."""
    before = None if then is None else then.file_bytes
    return [find_size(limit, now.file_bytes, before) for limit in limits if limit.quantity == "size"]


def find_in_rounds(limit: Limit, rounds: Sequence[Round]) -> Finding:
    """Return the finding for a limit of latency or memory from one or more rounds, as it is after the last of them.

    A latency above a budget tells nothing while the CPU's speed changes: the rounds have nothing to be compared with.
    """
    now = [_cost(limit, each.new) for each in rounds]
    then = [_cost(limit, each.other) for each in rounds if each.other is not None]
    bases = then if limit.is_relative else [limit.value] * len(now)
    interval = sequential_median_interval([math.log(cost / base) for cost, base in zip(now, bases, strict=True)])
    finding = _make_finding(limit, interval, statistics.median(now), statistics.median(then) if then else None)
    is_over_budget = finding.outcome == "regressed" and limit.is_latency_budget
    if is_over_budget and count_unsteady(rounds) > len(rounds) / 4:
        return replace(finding, outcome="not measurable")
    return finding


def count_unsteady(rounds: Sequence[Round]) -> int:
    """Return in how many of the new model's processes the speed probe was more than 10% off its median."""
    usual_ms = median_probe_ms([each.new for each in rounds])
    return sum(measurement_with_probe_deviation(each.new, usual_ms).is_disturbed for each in rounds)


def find_by_stored_samples(
    limit: Limit, now: Sequence[Measurement], then: Sequence[Measurement], anchor_ratio: float
) -> Finding:
    """Return the finding for a limit relative to stored measurements; both are of six processes or more.

    The interval is widened by what the anchor's latency changed: nobody knows whether the model shares that change.
    """
    after, before = (
        median_of_medians_with_interval([_cost(limit, measurement) for measurement in each]) for each in (now, then)
    )
    low, high = map(math.log, ratio_interval(after, before))
    change = math.log(anchor_ratio) if limit.quantity == "latency" else 0.0
    interval = MedianInterval(math.log(after[0] / before[0]), low - max(change, 0), high - min(change, 0))
    return _make_finding(limit, interval, after[0], before[0])


def _cost(limit: Limit, measurement: Measurement) -> float:
    if limit.quantity == "latency":
        return measurement.median_ms
    assert measurement.peak_bytes is not None  # limits of memory that is not measured have no findings
    return max(_PAGE, float(measurement.peak_bytes))


def _make_finding(limit: Limit, interval: MedianInterval, now: float, then: float | None) -> Finding:
    threshold = math.log(limit.value) if limit.is_relative else 0.0
    outcomes: dict[str | None, Outcome] = {"above": "regressed", "below": "ok", None: "not measurable"}
    return Finding(
        limit,
        outcomes[interval.side_of(threshold + _ROUNDING)],
        now,
        then,
        math.exp(interval.median),
        (math.exp(interval.low), math.exp(interval.high)),
        math.expm1(interval.reach) if math.isfinite(interval.low) else None,
    )
