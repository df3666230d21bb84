"""The front as a picture: accuracy against latency, coloured by memory."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgenas.files import write_bytes
from edgenas.report.labels import Pixels, place_labels, sample_line
from edgenas.search import Front
from edgenas.units import format_ms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

_WIDTH, _HEIGHT, _DPI = 1200, 800, 100
_PLOT = (0.072, 0.145, 0.805, 0.715)
_BAR = (0.897, 0.145, 0.016, 0.715)
_INK, _QUIET, _GRID, _ACCENT, _LIMIT = "#1f2933", "#616e7c", "#e4e7eb", "#d64545", "#9a5b00"
# Comes with matplotlib, so that the picture is the same on every machine.
_FONT = "DejaVu Sans"
# A budget farther out than this share of the latencies' span is named at the edge instead of drawn.
_REACH = 0.5
_TITLE_POINTS, _LABEL_POINTS, _BOX_PADDING = 17.0, 11.5, 0.35


@dataclass(frozen=True)
class Marker:
    """A measured subnet: the median latency in ms, the ends of its 95% interval, and the accuracy in 0..1."""

    name: str
    latency_ms: float
    interval_ms: tuple[float, float]
    accuracy: float


def draw_front(
    front: Front,
    path: Path,
    *,
    markers: Sequence[Marker] = (),
    budget_ms: float | None = None,
    synthetic: bool = False,
) -> None:
    """Draw a front as a PNG of 1200 x 800 pixels: equal input gives equal bytes.

    Every subnet of the front is a point at its predicted latency and accuracy,
    coloured by its predicted peak memory; a stair shows the best predicted
    accuracy within each latency. ``markers`` are measured subnets, with their
    intervals; ``budget_ms`` is a limit of latency (None or infinite: none);
    ``synthetic`` says in the title that the numbers are made up. Raises
    EdgeNASError when the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    limit_ms = None if budget_ms is None or math.isinf(budget_ms) else budget_ms
    figure = Figure(figsize=(_WIDTH / _DPI, _HEIGHT / _DPI), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes(_PLOT)
    _set_limits(axes, front, markers, limit_ms)
    _style(axes)
    _draw_title(figure, front, synthetic)
    _draw_predicted(figure, axes, front)
    _draw_measured(axes, markers)
    _draw_budget(axes, limit_ms)
    _draw_labels(axes, front, markers, limit_ms)
    _draw_legend(figure, axes)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=_DPI, metadata={"Software": None})
    write_bytes(path, data.getvalue())


def _set_limits(axes: Axes, front: Front, markers: Sequence[Marker], limit_ms: float | None) -> None:
    ends = [end for marker in markers for end in (marker.latency_ms, *marker.interval_ms)]
    latencies = np.array([*front.latency_ms, *ends])
    percents = 100 * np.array([*front.accuracy, *(marker.accuracy for marker in markers)])
    left, right = _span(latencies)
    reach = _REACH * (right - left)
    if limit_ms is not None and left - reach < limit_ms < right + reach:
        left, right = min(left, limit_ms), max(right, limit_ms)
    axes.set_xlim(*_widen(left, right, 0.05))
    axes.set_ylim(*_widen(*_span(percents), 0.08))


def _span(values: Any) -> tuple[float, float]:
    """Smallest and largest; around a single value, a tenth of it."""
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.05 * abs(low) - 1e-9, high + 0.05 * abs(high) + 1e-9)


def _widen(low: float, high: float, share: float) -> tuple[float, float]:
    return low - share * (high - low), high + share * (high - low)


def _style(axes: Axes) -> None:
    axes.set_xlabel("median latency of one inference (ms)", size=12, color=_INK, labelpad=8, fontfamily=_FONT)
    axes.set_ylabel("accuracy (%)", size=12, color=_INK, labelpad=8, fontfamily=_FONT)
    axes.yaxis.set_label_coords(-0.063, 0.5)
    axes.tick_params(labelsize=11, colors=_INK, length=4, labelfontfamily=_FONT)
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.grid(True, color=_GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_QUIET)


def _draw_title(figure: Figure, front: Front, synthetic: bool) -> None:
    title = f"{'SYNTHETIC: ' if synthetic else ''}Accuracy against latency on {front.target}"
    subnets = "1 subnet" if len(front) == 1 else f"{len(front):,} subnets"
    detail = f"{subnets} on the front of accuracy, latency and memory, of {front.evaluations:,} that were looked at"
    color = _ACCENT if synthetic else _INK
    text = figure.text(_PLOT[0], 0.947, title, size=_TITLE_POINTS, weight="bold", color=color, fontfamily=_FONT)
    room = (0.98 - _PLOT[0]) * _WIDTH
    text.set_fontsize(_TITLE_POINTS * min(1.0, room / text.get_window_extent().width))
    figure.text(_PLOT[0], 0.915, detail, size=11, color=_QUIET, fontfamily=_FONT)


def _draw_predicted(figure: Figure, axes: Axes, front: Front) -> None:
    stair = _stair(axes, front)
    axes.plot(stair[:, 0], stair[:, 1], color=_QUIET, linewidth=1.4, zorder=2, label="best predicted within a latency")
    megabytes = front.peak_bytes / 1e6
    low, high = _span(megabytes)
    points = axes.scatter(
        front.latency_ms, 100 * front.accuracy, c=megabytes, cmap="viridis_r", vmin=low, vmax=high, s=34,
        edgecolors="white", linewidths=0.6, zorder=3, label="predicted",
    )  # fmt: skip
    bar = figure.colorbar(points, cax=figure.add_axes(_BAR))
    bar.set_label("predicted peak memory (MB)", size=12, color=_INK, labelpad=10, fontfamily=_FONT)
    bar.ax.tick_params(labelsize=11, colors=_INK, labelfontfamily=_FONT)
    bar.ax.ticklabel_format(useOffset=False, style="plain")
    bar.outline.set_visible(False)


def _stair(axes: Axes, front: Front) -> Pixels:
    """Corners (M, 2) of the best accuracy (%) within each latency (ms), up to the right edge."""
    order = np.lexsort((-front.accuracy, front.latency_ms))
    latency, best = front.latency_ms[order], 100 * np.maximum.accumulate(front.accuracy[order])
    x = np.append(np.repeat(latency, 2)[1:], axes.get_xlim()[1])
    return np.column_stack([x, np.repeat(best, 2)])


def _draw_measured(axes: Axes, markers: Sequence[Marker]) -> None:
    if not markers:
        return
    latency = np.array([marker.latency_ms for marker in markers])
    ends = np.array([marker.interval_ms for marker in markers])
    axes.errorbar(
        latency, [100 * marker.accuracy for marker in markers], xerr=np.abs(ends.T - latency), fmt="D", markersize=10,
        markerfacecolor=_ACCENT, markeredgecolor="white", markeredgewidth=1.5, ecolor=_ACCENT, elinewidth=2,
        capsize=5, capthick=2, zorder=5, label="measured, with 95% interval of the median",
    )  # fmt: skip


def _draw_budget(axes: Axes, limit_ms: float | None) -> None:
    """The budget as a line with its name above the plot; as an arrow there where it lies beyond the edges."""
    if limit_ms is None:
        return
    left, right = axes.get_xlim()
    text, place, align = f"budget {format_ms(limit_ms)}", (limit_ms - left) / (right - left), "center"
    if place > 1:
        text, place, align = f"{text} →", 1.0, "right"
    elif place < 0:
        text, place, align = f"← {text}", 0.0, "left"
    else:
        axes.axvline(limit_ms, color=_LIMIT, linewidth=1.8, linestyle=(0, (6, 4)), zorder=1.5, label="latency budget")
    axes.text(
        place, 1.01, text, transform=axes.transAxes, ha=align, va="bottom", size=12, weight="bold", color=_LIMIT,
        fontfamily=_FONT,
    )  # fmt: skip


def _draw_labels(axes: Axes, front: Front, markers: Sequence[Marker], limit_ms: float | None) -> None:
    """The markers' names and numbers, each in a free place near its marker."""
    if not markers:
        return
    places = [(marker.latency_ms, 100 * marker.accuracy) for marker in markers]
    texts = [_label(axes, marker, place) for marker, place in zip(markers, places, strict=True)]
    sizes = np.array([_box_size(text) for text in texts])
    frame = axes.get_window_extent()
    centres = place_labels(
        axes.transData.transform(places),
        sizes,
        _obstacles(axes, front, markers, limit_ms),
        (frame.x0, frame.y0, frame.x1, frame.y1),
    )
    for text, centre in zip(texts, centres, strict=True):
        text.set_position((float(centre[0]), float(centre[1])))


def _label(axes: Axes, marker: Marker, place: tuple[float, float]) -> Annotation:
    box = {"boxstyle": f"round,pad={_BOX_PADDING}", "facecolor": "white", "edgecolor": _ACCENT, "alpha": 0.95}
    return axes.annotate(
        f"{marker.name}\n{format_ms(marker.latency_ms)}, {marker.accuracy:.1%}",
        place, xytext=(0, 0), textcoords="figure pixels", ha="center", va="center", size=_LABEL_POINTS, color=_INK,
        fontfamily=_FONT, linespacing=1.35, zorder=6, bbox=box,
        arrowprops={"arrowstyle": "-", "color": _ACCENT, "linewidth": 1.2, "shrinkB": 7},
    )  # fmt: skip


def _box_size(text: Annotation) -> tuple[float, float]:
    """Width and height of a label's box in pixels."""
    from matplotlib.text import Text

    words = Text.get_window_extent(text)  # an Annotation's own extent includes what it points to
    padding = 2 * _BOX_PADDING * _LABEL_POINTS * _DPI / 72
    return words.width + padding, words.height + padding


def _obstacles(axes: Axes, front: Front, markers: Sequence[Marker], limit_ms: float | None) -> Pixels:
    """Pixels (M, 2) that a label should not cover: points, stair, intervals and the budget's line."""
    to_pixels = axes.transData.transform
    lines = [_stair(axes, front)]
    lines += [np.array([(end, 100 * marker.accuracy) for end in marker.interval_ms]) for marker in markers]
    if limit_ms is not None:
        lines.append(np.array([(limit_ms, percent) for percent in axes.get_ylim()]))
    points = to_pixels(np.column_stack([front.latency_ms, 100 * front.accuracy]))
    return np.concatenate([points, *(sample_line(to_pixels(line), 8.0) for line in lines)])


def _draw_legend(figure: Figure, axes: Axes) -> None:
    from matplotlib.container import ErrorbarContainer
    from matplotlib.legend_handler import HandlerErrorbar

    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="lower center", bbox_to_anchor=(_PLOT[0] + _PLOT[2] / 2, 0.012), ncols=len(names),
        frameon=False, prop={"family": _FONT, "size": 11}, labelcolor=_INK, columnspacing=2.4, handletextpad=0.8,
        handler_map={ErrorbarContainer: HandlerErrorbar(xerr_size=1.5)}, handlelength=2.6,
    )  # fmt: skip
