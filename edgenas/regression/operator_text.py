"""Operators side by side in words: a table, the lines below it, and one line. No printing."""

from __future__ import annotations

from typing import NamedTuple

from edgenas.profilers import Operator
from edgenas.profilers.measure.measurement import format_shape
from edgenas.regression.blame import OperatorChange, OperatorComparison

TEXT_COLUMNS = 3  # the first of a table's columns; the others are numbers
_TIMES = ("before, us", "after, us", "more, us", "part")
_MAX_NAME_LENGTH = 60
_NAMED = 3  # operators on one line


class OperatorTable(NamedTuple):
    """A title, a table, and lines below it."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    lines: list[str]


def make_operator_table(comparison: OperatorComparison, max_rows: int) -> OperatorTable:
    """Return the operators that make the difference, those that make the largest first.

    Args:
        comparison: the operators of both.
        max_rows: how many are listed at most.
    """
    profiles = (comparison.before, comparison.after)
    has_times = any(profile.time_us is not None for profile in profiles)
    shown = _select(comparison, max_rows)
    runtimes = dict.fromkeys(profile.runtime for profile in profiles)
    return OperatorTable(
        f"operators by {' and '.join(runtimes)}",
        ("operator", "type", "what changed", *(_TIMES if has_times else ())),
        [_row_cells(change, has_times) for change in shown],
        [*_describe_hidden(comparison, shown), *_describe_sum(comparison)],
    )


def format_blame(comparison: OperatorComparison) -> str:
    """Return the operators that make the most of the difference on one line."""
    changed = [change for change in _select(comparison, _NAMED) if change.changes]
    named = ", ".join(_name_with_part(change) for change in changed) or "no operator to blame"
    return f"{comparison}; {named}"


def _select(comparison: OperatorComparison, number: int) -> list[OperatorChange]:
    """Return so many operators that changed or, where none did, of all."""
    changed = [change for change in comparison.by_difference if change.changes]
    return (changed or comparison.by_difference)[:number]


def _name_with_part(change: OperatorChange) -> str:
    part = "" if change.part is None else f" {change.part:.0%}"
    return f"{_name_operator(change.operator)} ({', '.join(change.changes)}){part}"


def _describe_hidden(comparison: OperatorComparison, shown: list[OperatorChange]) -> list[str]:
    hidden = [change for change in comparison.by_difference if change not in shown]
    difference = sum(change.difference_us or 0.0 for change in hidden)
    times = "" if comparison.difference_us is None else f", together {difference:+.1f} us"
    return [f"and {len(hidden)} more{times}; --json has all"] if hidden else []


def _describe_sum(comparison: OperatorComparison) -> list[str]:
    lines = [str(comparison)]
    if comparison.difference_us is not None and not comparison.differs:
        has_changes = any(change.changes for change in comparison.changes)
        blame = "" if has_changes else ", so no operator is to blame"
        lines.append(f"that is no more than they vary from process to process{blame}")
    return lines


def _row_cells(change: OperatorChange, has_times: bool) -> list[str]:
    times = ["-" if operator is None else _format_us(operator.time_us) for operator in (change.before, change.after)]
    times.append("" if change.difference_us is None else f"{change.difference_us:+.1f}")
    times.append("" if change.part is None else f"{change.part:.0%}")
    name, kind = _name_operator(change.operator), change.operator.type
    return [name, kind, _describe_changes(change), *(times if has_times else ())]


def _format_us(time_us: float | None) -> str:
    return "not known" if time_us is None else f"{time_us:.1f}"


def _name_operator(operator: Operator) -> str:
    """Return the nodes of the file that an operator computes, or else the runtime's name for it."""
    name = " + ".join(operator.sources) or operator.name
    half = (_MAX_NAME_LENGTH - 5) // 2
    return name if len(name) <= _MAX_NAME_LENGTH else f"{name[:half]} ... {name[-half:]}"


def _describe_changes(change: OperatorChange) -> str:
    before, after = change.before, change.after
    if before is None or after is None:
        return ", ".join(change.changes)
    details = {
        "provider": f"{before.provider} -> {after.provider}",
        "fusion": f"was {_name_operator(before)}",
        "type": f"was {before.type}",
        "shapes": _format_other_shapes(before, after),
    }
    return ", ".join(f"{each}: {details[each]}" if each in details else each for each in change.changes)


def _format_other_shapes(before: Operator, after: Operator) -> str:
    """Return the outputs that differ, or else the inputs, such as weights; other numbers of them as a whole."""
    old, new = before.output_shapes, after.output_shapes
    if old == new:
        old, new = before.input_shapes, after.input_shapes
    if len(old) == len(new):
        differing = [place for place, shape in enumerate(old) if shape != new[place]]
        old, new = (tuple(shapes[place] for place in differing) for shapes in (old, new))
    return " -> ".join(" ".join(map(format_shape, shapes)) or "none" for shapes in (old, new))
