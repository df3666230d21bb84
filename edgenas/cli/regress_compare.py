"""``edgenas regress compare``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenas.cli.common import JsonOption, print_json, print_lines, print_table
from edgenas.errors import ExitCode
from edgenas.units import format_ms, format_ms_interval

if TYPE_CHECKING:
    from edgenas.profilers import Operator
    from edgenas.regression import OperatorChange, OperatorComparison
    from edgenas.regression.compare import ComparedModel, ModelComparison

EXAMPLE = "Example: edgenas regress compare old.onnx new.onnx --device raspberry-pi-5"
_TIMES = ("before, us", "after, us", "more, us", "part")
_MAX_ROWS = 20
_MAX_NAME_LENGTH = 60


def command(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="One or two ONNX or TFLite files.", show_default=False)
    ],
    devices: Annotated[
        list[str] | None,
        typer.Option("--device", help="A device profile; twice for one model. By default localhost."),
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="NAME=SIZES", help="The shape of an input, as image=1x3x224x224; repeatable."),
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Arrays for the inputs, by name, instead of random ones.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Say which operators make the difference between two models, or one on two devices.

    Exit code 5 where a measurement is rejected.
    """
    from edgenas.devices import load_profile
    from edgenas.profilers import ModelInputs
    from edgenas.regression.compare import compare_models

    profiles = [load_profile(device) for device in devices or ["localhost"]]
    given = ModelInputs.parse(shapes or [], inputs)
    with contextlib.ExitStack() as stack:
        show = _ProgressOfSteps(stack)
        comparison = compare_models(models, profiles, given, on_start=show.start, on_process=show.advance)
    if json:
        print_json(comparison.to_dict())
    else:
        print_comparison(comparison)
    if comparison.ratio is None:
        raise typer.Exit(ExitCode.NOT_MEASURABLE)


class _ProgressOfSteps:
    """Progress of steps that follow each other."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack, self._done = stack, 0

    def start(self, what: str, processes: int) -> None:
        from edgenas.pipeline.progress import Progress

        self._stack.close()
        self._bar, self._done, self._total = self._stack.enter_context(Progress().step(what, processes)), 0, processes
        self._bar(0)

    def advance(self) -> None:
        self._done += 1
        self._bar(min(self._done, self._total))


def print_comparison(comparison: ModelComparison) -> None:
    """Print what both take, the operators side by side, and where they ran."""
    from edgenas.cli.measurement_output import format_conditions

    sides = (comparison.before, comparison.after)
    labels = _label_sides(*sides)
    made_up = " SYNTHETIC" if comparison.before.result.synthetic else ""
    names = " and ".join(dict.fromkeys(side.target.name for side in sides))
    columns = ("", "median", "95% range", "processes", "validity")
    rows = [[label, *_measured_cells(side)] for label, side in zip(labels, sides, strict=True)]
    print_table(columns, rows, f"{names}{made_up}")
    for line in dict.fromkeys(f"validity: {side.result.validity}" for side in sides):
        print_lines(line)
    print_lines(f"conditions: {format_conditions([side.result for side in sides])}")
    print_lines(_format_ratio(comparison, labels[1]), "")
    print_operators(comparison.operators)
    if comparison.operators.difference_us is not None:
        more_us = 1e3 * (comparison.after.result.median_ms - comparison.before.result.median_ms)
        print_lines(f"without the profiler, which takes time itself, the difference is {more_us:+.1f} us a run")


def print_operators(comparison: OperatorComparison) -> None:
    """Print the operators that make the difference, and where they ran; also for what else finds a regression."""
    profiles = (comparison.before, comparison.after)
    changed = [change for change in comparison.by_difference if change.changes]
    shown = (changed or comparison.by_difference)[:_MAX_ROWS]
    has_times = any(profile.time_us is not None for profile in profiles)
    columns = ("operator", "type", "what changed", *(_TIMES if has_times else ()))
    runtimes = dict.fromkeys(profile.runtime for profile in profiles)
    rows = [_row_cells(change, has_times) for change in shown]
    print_table(columns, rows, f"operators by {' and '.join(runtimes)}", texts=3)
    if hidden := [change for change in comparison.by_difference if change not in shown]:
        difference = sum(change.difference_us or 0.0 for change in hidden)
        times = "" if comparison.difference_us is None else f", together {difference:+.1f} us"
        print_lines(f"and {len(hidden)} more{times}; --json has all")
    print_lines(str(comparison))
    if comparison.difference_us is not None and not comparison.differs:
        blame = "" if changed else ", so no operator is to blame"
        print_lines(f"that is no more than they vary from process to process{blame}")
    print_lines(f"placement: {comparison.placement}")


def _label_sides(before: ComparedModel, after: ComparedModel) -> list[str]:
    if before.model != after.model:
        return [str(before.model), str(after.model)]
    return [f"{side.target.profile.name} ({side.target.runtime} {_version(side)})" for side in (before, after)]


def _version(side: ComparedModel) -> str:
    return side.result.measurements[0].versions.get(side.target.runtime, "of unknown version")


def _measured_cells(side: ComparedModel) -> list[str]:
    result = side.result
    interval = format_ms_interval(result.range_ms) if result.has_interval else "-"
    return [format_ms(result.median_ms), interval, str(len(result.measurements)), result.validity.status]


def _format_ratio(comparison: ModelComparison, label: str) -> str:
    if comparison.ratio is None:
        return f"{label}: cannot be compared, because a measurement is rejected"
    ratio, low, high = comparison.ratio
    how = "a process of each in turn" if comparison.side_by_side else "one after the other"
    return f"{label}: takes {ratio:.3f} times as long ({low:.3f} to {high:.3f} at 95%), {how}"


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
    from edgenas.profilers.measure.measurement import format_shape

    old, new = before.output_shapes, after.output_shapes
    if old == new:
        old, new = before.input_shapes, after.input_shapes
    if len(old) == len(new):
        differing = [place for place, shape in enumerate(old) if shape != new[place]]
        old, new = (tuple(shapes[place] for place in differing) for shapes in (old, new))
    return " -> ".join(" ".join(map(format_shape, shapes)) or "none" for shapes in (old, new))
