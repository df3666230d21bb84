"""Checks in words: the cells of a table, a headline, and lines. No printing."""

from __future__ import annotations

import math

from edgenas.regression.checks import CheckReport
from edgenas.regression.model_check import ModelCheck
from edgenas.regression.outcome import Finding
from edgenas.regression.placement import PlacementComparison, format_counts
from edgenas.regression.reasons import count_rounds

COLUMNS = ("limit", "was", "now", "change", "95% interval", "would have shown", "outcome")
MAX_OPERATORS = 10  # that are listed where a model became slower


def format_headline(report: CheckReport) -> str:
    """Return the outcome of a check and how it came about, on one line."""
    check = report.check
    if check is None:
        return f"{report.request.label}: failed"
    made_up = " SYNTHETIC" if check.synthetic else ""
    spent = f", {check.method}, {count_rounds(len(check.rounds))} in {check.seconds:.1f} s" if check.rounds else ""
    return f"{report.request.label}: {check.outcome}{made_up} ({check.target}{spent})"


def format_rows(report: CheckReport) -> list[tuple[str, ...]]:
    """Return the rows of a check's table: one for each limit, and one for the placement where it was compared."""
    check = report.check
    if check is None:
        return []
    placement = [_format_placement(check.placement)] if check.placement else []
    return [*map(_format_finding, check.findings), *placement]


def _format_placement(placement: PlacementComparison) -> tuple[str, ...]:
    ran, runs = format_counts(placement.before), format_counts(placement.after)
    change = f"{len(placement.left)} left" if placement.left else "none left"
    return "placement", ran, runs, change, "exact", "any change", "regressed" if placement.is_regression else "ok"


def _format_finding(finding: Finding) -> tuple[str, ...]:
    """Return the cells of a finding, in the order of ``COLUMNS``."""
    limit = finding.limit
    return (
        f"{limit.quantity} {limit.text}",
        "" if finding.then is None else limit.format_cost(finding.then),
        limit.format_cost(finding.now),
        f"{limit.format_ratio(finding.ratio)}{'' if limit.is_relative else ' of it'}",
        _format_interval(finding),
        format_smallest_change(finding),
        finding.outcome,
    )


def _format_interval(finding: Finding) -> str:
    low, high = finding.interval
    if low == high:
        return "exact"
    if not (low > 0 and math.isfinite(high)):
        return "too few rounds"
    return f"{finding.limit.format_ratio(low)} to {finding.limit.format_ratio(high)}"


def format_smallest_change(finding: Finding) -> str:
    """Return the smallest increase that would have shown."""
    if finding.smallest_change is None:
        return "nothing yet"
    return f"above {finding.smallest_change:.1%}" if finding.smallest_change else "any change"


def format_notes(report: CheckReport) -> list[str]:
    """Return the lines below a check's table: reasons, accuracy, what is faster, notes."""
    check = report.check
    if check is None:
        return [f"failed: {report.error}"]
    lines = [f"{check.outcome}: {reason}" for reason in check.reasons]
    lines += [line] if (line := _format_accuracy(check)) else []
    if check.is_faster:
        lines.append(f"it is faster than the baseline; to guard that, update the baseline: {check.update_command}")
    return lines + [f"note: {warning}" for warning in check.warnings]


def _format_accuracy(check: ModelCheck) -> str:
    """Return the accuracies that bundles state; empty where neither model is a bundle with one."""
    then = None if check.then is None else check.then.accuracy
    if check.model.accuracy is None and then is None:
        return ""
    now, before = ("not stated" if each is None else f"{each:.2%}" for each in (check.model.accuracy, then))
    return f"accuracy of the bundle: {now}, was {before}"
