"""Printing what ``edgenas profile`` shows: the latency of a subnet by parts, and the check of a table."""

from __future__ import annotations

import shutil
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from edgenas.cli.common import print_lines, print_table
from edgenas.units import UNRESOLVED, format_ms, format_ms_interval, format_ms_part, is_resolved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgenas.pipeline.check_table import TableCheck
    from edgenas.pipeline.explain import Explanation, PartLatency
    from edgenas.profilers.latency.holdout import HoldoutReport

_COLUMNS = ("part", "what", "output", "", "time", "share")
_WIDTH = 100  # where standard output is no terminal
_NUMBERS = 24  # columns that times, shares and gaps take
_LEAST_BAR, _MOST_BAR = 6, 40
_EIGHTHS = " ▏▎▍▌▋▊▉"


def print_explanation(explanation: Explanation) -> None:
    """Print a table of parts with bars, each stage's time above its parts."""
    stages = groupby(explanation.rows, lambda row: row.stage)
    lines = [line for _, group in stages for line in _stage_lines(list(group))]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH
    taken = sum(max(map(len, texts)) for texts in list(zip(*lines, strict=True))[:3])
    room = min(_MOST_BAR, max(_LEAST_BAR, width - taken - _NUMBERS))
    longest, whole = max(row.ms for row in explanation.rows), explanation.latency_ms
    table = [
        (
            name,
            what,
            out,
            format_bar(ms / longest, room) if what else "",
            format_ms_part(ms, whole),
            f"{ms / whole:.1%}",
        )
        if is_resolved(ms, whole)
        else (name, what, out, UNRESOLVED, "", "")
        for name, what, out, ms in lines
    ]
    print_table(_COLUMNS, table, format_explanation_title(explanation), texts=4)


def format_explanation_title(explanation: Explanation) -> str:
    """Return the subnet, its target, and the predicted latency with its interval, on one line."""
    made_up = " SYNTHETIC" if explanation.synthetic else ""
    return f"{explanation.architecture} on {explanation.target}{made_up}: {_format_prediction(explanation)}"


def save_explanation_plot(explanation: Explanation, path: Path) -> None:
    """Draw the parts as a PNG; raise EdgeNASError when the file cannot be written."""
    from edgenas.report import write_part_times_plot

    name = f"Predicted latency of {explanation.architecture} on {explanation.target}, by parts"
    write_part_times_plot(
        explanation.rows, path, title=name, detail=_format_prediction(explanation), synthetic=explanation.synthetic
    )


def format_bar(share: float, room: int) -> str:
    """Return a bar of a share of ``room`` columns, to an eighth of a column."""
    whole, eighths = divmod(round(8 * room * share), 8)
    return "█" * whole + _EIGHTHS[eighths].strip()


def _format_prediction(explanation: Explanation) -> str:
    if explanation.interval_ms is None:
        return f"{format_ms(explanation.latency_ms)} predicted, by a published table"
    interval = format_ms_interval(explanation.interval_ms)
    return f"{format_ms(explanation.latency_ms)} predicted, 95% interval {interval}"


def _stage_lines(rows: Sequence[PartLatency]) -> list[tuple[str, str, str, float]]:
    """Return a stage's lines (name, what, output, ms): its sum above its parts, or its only part."""
    if len(rows) == 1:
        return [(rows[0].name, rows[0].what, rows[0].out, rows[0].ms)]
    parts = [(f"  {row.name.rpartition('.')[2]}", row.what, row.out, row.ms) for row in rows]
    return [(rows[0].stage, "", "", sum(row.ms for row in rows)), *parts]


def print_check(check: TableCheck) -> None:
    """Print the holdout report beside that of the fresh subnets, and the conclusion."""
    names = ("subnets", "MAPE", "p95 of errors", "within 10%", "95% interval coverage", "bias", "Kendall tau",
             "tau at equal resolution")  # fmt: skip
    rows = list(zip(names, _report_cells(check.then), _report_cells(check.now), strict=True))
    made_up = " SYNTHETIC" if check.now.synthetic else ""
    title = f"check {check.number} of {check.target}{made_up}"
    print_table(["", "holdout", "fresh subnets"], rows, title)
    validity_counts = ", ".join(f"{count} {validity}" for validity, count in check.now.validity_counts.items())
    print_lines(f"measured: {validity_counts}, {check.device_s:.0f} s of device time")
    print_lines(check.conclusion)
    if check.then.coarseness:
        print_lines(f"too coarse: {check.then.coarseness}")
    if not check.agrees:
        print_lines(f"to profile again: {check.remedy}")


def _report_cells(report: HoldoutReport) -> list[str]:
    return [
        str(report.held_out),
        f"{report.mape:.1%}",
        f"{report.p95:.1%}",
        f"{report.within_10_percent:.0%}",
        f"{report.within_interval:.0%}",
        f"{report.bias:+.1%}",
        f"{report.kendall_tau:.2f}",
        "-" if report.kendall_tau_within is None else f"{report.kendall_tau_within:.2f}",
    ]
