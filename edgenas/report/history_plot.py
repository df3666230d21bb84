"""The history of a latency gate as a picture: the latency of each check, and where its level changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgenas.errors import UsageError
from edgenas.regression.series import Series
from edgenas.report.style import ACCENT, FONT, INK, QUIET, draw_title, make_figure, style_axes, write_png
from edgenas.units import format_change

_HEIGHT = 320  # pixels, of each series
_LEFT, _PLOT_WIDTH = 0.072, 0.9  # shares of the picture
_TITLE, _PLOT = 70, 190  # pixels: of the title above a plot, and of the plot


def write_history_plot(series: Sequence[Series], path: Path) -> None:
    """Draw the latencies of checks as a PNG, one plot below the other, the oldest check left.

    Each check is a point; the median of each part between two changes is a line. Equal input gives equal bytes.

    Raises:
        UsageError: nothing was measured in any of them.
    """
    series = [one for one in series if one.entries]
    if not series:
        raise UsageError(f"{path}: nothing was measured, so there is nothing to draw; leave --out away")
    height = _HEIGHT * len(series)
    figure = make_figure(height)
    for number, one in enumerate(series):
        top = height - _HEIGHT * number
        axes = figure.add_axes((_LEFT, (top - _TITLE - _PLOT) / height, _PLOT_WIDTH, _PLOT / height))
        style_axes(axes, "check, the oldest first")
        axes.set_ylabel("median latency, ms", size=12, color=INK, fontfamily=FONT)
        axes.plot(range(len(one.entries)), one.values_ms, "o", color=QUIET, markersize=5)
        before = None
        for first, end, median in one.levels():
            axes.hlines(median, first - 0.4, end - 0.6, color=ACCENT, linewidth=2)
            if before is not None:
                same = "" if one.new_model_at(first) else ", same model"
                label = f"{one.entries[first].time[:10]}  {format_change(median / before)}{same}"
                axes.annotate(label, (first - 0.4, median), (4, 6), textcoords="offset points", size=11, color=ACCENT)
            before = median
        detail = f"{len(one.entries)} checks, {one.entries[0].time} to {one.entries[-1].time}; {one.conditions}"
        draw_title(
            figure, _LEFT, title=one.name, title_y=(top - 34) / height, detail=detail, detail_y=(top - 56) / height,
            synthetic=False,
        )  # fmt: skip
    write_png(figure, path)
