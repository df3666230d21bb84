"""Where the time of one subnet goes, as a picture: a bar for each part, grouped by stage."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgenas.files import write_bytes
from edgenas.units import format_ms_part

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI, _WIDTH = 100, 1200
_ROW, _GAP, _TOP, _BOTTOM = 25, 11, 112, 64  # pixels: a bar with its room, between stages, above and below the plot
# Pixels from the left: stages, parts' names, what they are, the plot's two ends.
_STAGE, _NAME, _WHAT, _LEFT, _RIGHT = 28, 176, 276, 636, 1040
_THICK = 0.66  # of a bar's room
_INK, _QUIET, _GRID, _ACCENT = "#1f2933", "#616e7c", "#e4e7eb", "#d64545"
_BARS = ("#31688e", "#35b779")  # of viridis, in turn from stage to stage
# Comes with matplotlib, so that the picture is the same on every machine.
_FONT = "DejaVu Sans"
_TITLE_POINTS = 17.0


class PartTime(Protocol):
    """A part of a subnet: its stage, name, what it is and gives as texts, and its time in ms and as a share."""

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


def draw_part_times(
    rows: Sequence[PartTime], path: Path, *, title: str, detail: str = "", synthetic: bool = False
) -> None:
    """Draw the times of a subnet's parts as a PNG, 1200 pixels wide: equal input gives equal bytes.

    ``rows`` are from top to bottom, those of a stage together. ``title`` and
    ``detail`` stand above; ``synthetic`` says in the title that the numbers are
    made up. Raises EdgeNASError when the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    places, height = _places(rows)
    total = _TOP + height + _BOTTOM
    figure = Figure(figsize=(_WIDTH / _DPI, total / _DPI), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((_LEFT / _WIDTH, _BOTTOM / total, (_RIGHT - _LEFT) / _WIDTH, height / total))
    axes.set_ylim(height, 0)
    axes.set_xlim(0, max(max(row.ms for row in rows), 1e-9))
    _style(axes)
    _draw_title(figure, total, title, detail, synthetic)
    _draw_bars(axes, rows, places)
    _draw_texts(figure, total, rows, places)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=_DPI, metadata={"Software": None})
    write_bytes(path, data.getvalue())


def _places(rows: Sequence[PartTime]) -> tuple[list[float], int]:
    """The middle of each row in pixels from the top of the plot, and the plot's height."""
    places: list[float] = []
    below = _GAP
    for _, group in groupby(rows, lambda row: row.stage):
        count = len(list(group))
        places += [below + (number + 0.5) * _ROW for number in range(count)]
        below += count * _ROW + _GAP
    return places, below


def _style(axes: Axes) -> None:
    axes.set_xlabel("predicted time of one inference (ms)", size=12, color=_INK, labelpad=8, fontfamily=_FONT)
    axes.tick_params(labelsize=11, colors=_INK, length=4, labelfontfamily=_FONT)
    axes.ticklabel_format(axis="x", useOffset=False, style="plain")
    axes.locator_params(axis="x", nbins=6)
    axes.set_yticks([])
    axes.grid(True, axis="x", color=_GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_QUIET)


def _draw_title(figure: Figure, total: int, title: str, detail: str, synthetic: bool) -> None:
    text = figure.text(
        _STAGE / _WIDTH, 1 - 46 / total, f"{'SYNTHETIC: ' if synthetic else ''}{title}", size=_TITLE_POINTS,
        weight="bold", color=_ACCENT if synthetic else _INK, fontfamily=_FONT,
    )  # fmt: skip
    room = 0.98 * _WIDTH - _STAGE
    text.set_fontsize(_TITLE_POINTS * min(1.0, room / text.get_window_extent().width))
    figure.text(_STAGE / _WIDTH, 1 - 74 / total, detail, size=11, color=_QUIET, fontfamily=_FONT)


def _draw_bars(axes: Axes, rows: Sequence[PartTime], places: Sequence[float]) -> None:
    stages = list(dict.fromkeys(row.stage for row in rows))
    colors = [_BARS[stages.index(row.stage) % len(_BARS)] for row in rows]
    axes.barh(places, [row.ms for row in rows], height=_THICK * _ROW, color=colors, zorder=2)
    whole = sum(row.ms for row in rows)
    for row, place in zip(rows, places, strict=True):
        said = f"{format_ms_part(row.ms, whole)}  {row.share:.1%}"
        axes.annotate(
            said, (row.ms, place), xytext=(6, 0), textcoords="offset pixels",
            va="center", size=10, color=_INK, fontfamily=_FONT, annotation_clip=False, zorder=3,
        )  # fmt: skip


def _draw_texts(figure: Figure, total: int, rows: Sequence[PartTime], places: Sequence[float]) -> None:
    """Left of the bars: each stage with its time once, each part with what it is."""
    whole = sum(row.ms for row in rows)
    for stage, group in groupby(zip(rows, places, strict=True), lambda pair: pair[0].stage):
        members = list(group)
        first = _TOP + members[0][1]
        _text(figure, _STAGE, 1 - first / total, stage, weight="bold")
        if len(members) > 1:
            ms = sum(row.ms for row, _ in members)
            below = 1 - (first + 0.72 * _ROW) / total
            _text(figure, _STAGE, below, f"{format_ms_part(ms, whole)}  {ms / whole:.1%}", color=_QUIET)
        for row, place in members:
            y = 1 - (_TOP + place) / total
            _text(figure, _NAME, y, "" if row.name == stage and len(members) == 1 else row.name.rpartition(".")[2])
            _text(figure, _WHAT, y, row.what, color=_QUIET)
            _text(figure, _LEFT - 12, y, row.out, color=_QUIET, ha="right")


def _text(
    figure: Figure, x: float, y: float, text: str, color: str = _INK, ha: str = "left", weight: str = "normal"
) -> None:
    figure.text(x / _WIDTH, y, text, size=10, color=color, ha=ha, va="center", weight=weight, fontfamily=_FONT)
