"""The style of all pictures: size, colours, font, title and axes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from edgenas.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI, WIDTH = 100, 1200  # pixels
INK, QUIET, GRID, ACCENT = "#1f2933", "#616e7c", "#e4e7eb", "#d64545"
FONT = "DejaVu Sans"  # comes with matplotlib, so that a picture is the same on every machine
_TITLE_POINTS = 17.0
_RIGHT_EDGE = 0.98  # of the title, as a share of the picture's width


def make_figure(height: int) -> Figure:
    """Return an empty white figure, ``WIDTH`` by ``height`` pixels, that needs no pyplot and its global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG without metadata, so that equal figures give equal bytes."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI, metadata={"Software": None})
    write_bytes(path, data.getvalue())


def style_axes(axes: Axes, x_label: str) -> None:
    """Label the x axis and give the axes their ticks, grid and colours."""
    axes.set_xlabel(x_label, size=12, color=INK, labelpad=8, fontfamily=FONT)
    axes.tick_params(labelsize=11, colors=INK, length=4, labelfontfamily=FONT)
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.grid(True, color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)


def draw_title(
    figure: Figure, left: float, *, title: str, title_y: float, detail: str, detail_y: float, synthetic: bool
) -> None:
    """Draw a title, made smaller where it is too long, and a line of detail; positions are shares of the figure."""
    text = figure.text(
        left, title_y, f"{'SYNTHETIC: ' if synthetic else ''}{title}", size=_TITLE_POINTS, weight="bold",
        color=ACCENT if synthetic else INK, fontfamily=FONT,
    )  # fmt: skip
    room = (_RIGHT_EDGE - left) * WIDTH
    text.set_fontsize(_TITLE_POINTS * min(1.0, room / text.get_window_extent().width))
    figure.text(left, detail_y, detail, size=11, color=QUIET, fontfamily=FONT)
