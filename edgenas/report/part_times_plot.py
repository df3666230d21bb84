"""The predicted times of a subnet's parts as a picture: one bar for each part, grouped by stage."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgenas.report.style import FONT, INK, QUIET, WIDTH, draw_title, make_figure, style_axes, write_png
from edgenas.units import UNRESOLVED, format_ms_part, is_resolved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Pixels: the height of a row, the gap between stages, the margins above and below the plot.
_ROW, _GAP, _TOP, _BOTTOM = 25, 11, 112, 64
# Pixels from the left: stages, names of parts, their descriptions, the two ends of the plot.
_STAGE, _NAME, _WHAT, _LEFT, _RIGHT = 28, 176, 276, 636, 1040
_BAR_HEIGHT = 0.66  # of a row
_BAR_COLORS = ("#31688e", "#35b779")  # of viridis, alternating from stage to stage


class PartTime(Protocol):
    """A row of the picture: a part's stage, name, description and output size as text, and its time."""

    @property
    def stage(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def what(self) -> str: ...
    @property
    def out(self) -> str: ...
    @property
    def ms(self) -> float: ...
    @property
    def share(self) -> float: ...


def write_part_times_plot(
    rows: Sequence[PartTime], path: Path, *, title: str, detail: str = "", synthetic: bool = False
) -> None:
    """Draw the times of a subnet's parts as a PNG, 1200 pixels wide. Equal input gives equal bytes.

    Args:
        rows: The parts from top to bottom, those of a stage together.
        path: The file to write.
        title: The title; a long one is drawn smaller.
        detail: The line below the title.
        synthetic: The times are made up, and the title says so.

    Raises:
        EdgeNASError: The file cannot be written.
    """
    centres, height = _row_centres_and_height(rows)
    total = _TOP + height + _BOTTOM
    figure = make_figure(total)
    axes = figure.add_axes((_LEFT / WIDTH, _BOTTOM / total, (_RIGHT - _LEFT) / WIDTH, height / total))
    axes.set_ylim(height, 0)
    axes.set_xlim(0, max(max(row.ms for row in rows), 1e-9))
    style_axes(axes, "predicted time of one inference (ms)")
    axes.locator_params(axis="x", nbins=6)
    axes.set_yticks([])
    draw_title(
        figure, _STAGE / WIDTH, title=title, title_y=1 - 46 / total, detail=detail, detail_y=1 - 74 / total,
        synthetic=synthetic,
    )  # fmt: skip
    _draw_bars(axes, rows, centres)
    _draw_texts(figure, total, rows, centres)
    write_png(figure, path)


def _row_centres_and_height(rows: Sequence[PartTime]) -> tuple[list[float], int]:
    """Return the centre of each row in pixels below the top of the plot, and the plot's height."""
    centres: list[float] = []
    height = _GAP
    for _, group in groupby(rows, lambda row: row.stage):
        count = len(list(group))
        centres += [height + (number + 0.5) * _ROW for number in range(count)]
        height += count * _ROW + _GAP
    return centres, height


def _draw_bars(axes: Axes, rows: Sequence[PartTime], centres: Sequence[float]) -> None:
    stages = list(dict.fromkeys(row.stage for row in rows))
    colors = [_BAR_COLORS[stages.index(row.stage) % len(_BAR_COLORS)] for row in rows]
    axes.barh(centres, [row.ms for row in rows], height=_BAR_HEIGHT * _ROW, color=colors, zorder=2)
    whole = sum(row.ms for row in rows)
    for row, centre in zip(rows, centres, strict=True):
        axes.annotate(
            _format_time(row.ms, whole), (row.ms, centre), xytext=(6, 0),
            textcoords="offset pixels", va="center", size=10, color=INK, fontfamily=FONT, annotation_clip=False,
            zorder=3,
        )  # fmt: skip


def _format_time(ms: float, whole: float) -> str:
    """Return a time and its share of the whole."""
    return f"{format_ms_part(ms, whole)}  {ms / whole:.1%}" if is_resolved(ms, whole) else UNRESOLVED


def _draw_texts(figure: Figure, total: int, rows: Sequence[PartTime], centres: Sequence[float]) -> None:
    """Draw the texts left of the bars: each stage with its time, each part with its description and size."""
    whole = sum(row.ms for row in rows)
    for stage, group in groupby(zip(rows, centres, strict=True), lambda pair: pair[0].stage):
        members = list(group)
        top = _TOP + members[0][1]
        _draw_text(figure, _STAGE, 1 - top / total, stage, weight="bold")
        if len(members) > 1:
            ms = sum(row.ms for row, _ in members)
            below = 1 - (top + 0.72 * _ROW) / total
            _draw_text(figure, _STAGE, below, _format_time(ms, whole), color=QUIET)
        for row, centre in members:
            y = 1 - (_TOP + centre) / total
            _draw_text(figure, _NAME, y, "" if row.name == stage and len(members) == 1 else row.name.rpartition(".")[2])
            _draw_text(figure, _WHAT, y, row.what, color=QUIET)
            _draw_text(figure, _LEFT - 12, y, row.out, color=QUIET, ha="right")


def _draw_text(
    figure: Figure, x: float, y: float, text: str, color: str = INK, ha: str = "left", weight: str = "normal"
) -> None:
    figure.text(x / WIDTH, y, text, size=10, color=color, ha=ha, va="center", weight=weight, fontfamily=FONT)
