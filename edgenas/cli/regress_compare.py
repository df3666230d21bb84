"""``edgenas regress compare``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgenas.cli.common import (
    InputsOption,
    JsonOption,
    ShapeOption,
    print_json,
    print_lines,
    print_table,
)
from edgenas.errors import ExitCode
from edgenas.units import format_ms, format_ms_interval

if TYPE_CHECKING:
    from edgenas.regression import OperatorComparison
    from edgenas.regression.compare import ComparedModel, ModelComparison

EXAMPLE = "Example: edgenas regress compare old.onnx new.onnx --device raspberry-pi-5"
_MAX_ROWS = 20


def command(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="One or two ONNX or TFLite files.", show_default=False)
    ],
    devices: Annotated[
        list[str] | None,
        typer.Option("--device", help="A device profile; twice for one model. By default localhost."),
    ] = None,
    shapes: ShapeOption = None,
    inputs: InputsOption = None,
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
    print_lines(f"placement: {comparison.operators.placement}")
    if comparison.operators.difference_us is not None:
        more_us = 1e3 * (comparison.after.result.median_ms - comparison.before.result.median_ms)
        print_lines(f"without the profiler, which takes time itself, the difference is {more_us:+.1f} us a run")


def print_operators(comparison: OperatorComparison, max_rows: int = _MAX_ROWS) -> None:
    """Print the operators that make the difference; also for a check."""
    from edgenas.regression.operator_text import TEXT_COLUMNS, make_operator_table

    table = make_operator_table(comparison, max_rows)
    print_table(table.columns, table.rows, table.title, texts=TEXT_COLUMNS)
    print_lines(*table.lines)


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
