"""A front as a picture: accuracy against latency, coloured by memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgenas.report.label_placement import Pixels, choose_label_centres, sample_line
from edgenas.report.style import ACCENT, DPI, FONT, INK, QUIET, draw_title, make_figure, style_axes, write_png
from edgenas.search import Front
from edgenas.search.quantities import noun_of
from edgenas.units import format_ms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

_HEIGHT = 800  # pixels
# Left, bottom, width and height as shares of the picture.
_PLOT = (0.072, 0.145, 0.805, 0.715)
_COLOR_BAR = (0.897, 0.145, 0.016, 0.715)
_BUDGET_COLOR = "#9a5b00"
# A budget farther out than this share of the latencies' span is named at the edge instead of drawn.
_BUDGET_REACH = 0.5
_LABEL_POINTS, _BOX_PADDING = 11.5, 0.35


@dataclass(frozen=True)
class Marker:
    """A measured subnet: its median latency, the ends of the 95% interval of the median, and its accuracy, 0 to 1."""

    name: str
    latency_ms: float
    interval_ms: tuple[float, float]
    accuracy: float


def write_front_plot(
    front: Front,
    path: Path,
    *,
    markers: Sequence[Marker] = (),
    references: Front | None = None,
    budget_ms: float | None = None,
    synthetic: bool = False,
) -> None:
    """Draw a front as a PNG of 1200 x 800 pixels. Equal input gives equal bytes.

    Every subnet of the front is a point at its predicted latency and accuracy,
    coloured by its predicted peak memory. A stair shows the best predicted
    accuracy within each latency.

    Args:
        front: The front.
        path: The file to write.
        markers: Measured subnets, drawn with their intervals.
        references: Networks that no search found, such as the smallest and the largest at each resolution.
        budget_ms: A latency limit; None or infinity for none.
        synthetic: The numbers are made up, and the title says so.

    Raises:
        EdgeNASError: The file cannot be written.
    """
    limit_ms = None if budget_ms is None or math.isinf(budget_ms) else budget_ms
    figure = make_figure(_HEIGHT)
    axes = figure.add_axes(_PLOT)
    _set_limits(axes, front, markers, references, limit_ms)
    style_axes(axes, "median latency of one inference (ms)")
    axes.set_ylabel("accuracy (%)", size=12, color=INK, labelpad=8, fontfamily=FONT)
    axes.yaxis.set_label_coords(-0.063, 0.5)
    subnets = "1 subnet" if len(front) == 1 else f"{len(front):,} subnets"
    draw_title(
        figure, _PLOT[0], title=f"Accuracy against latency on {front.target}", title_y=0.947,
        detail=f"{subnets} on the front of {_join(front.objectives)}, of {front.evaluations:,} evaluated",
        detail_y=0.915, synthetic=synthetic,
    )  # fmt: skip
    _draw_predicted(figure, axes, front)
    _draw_references(axes, references)
    _draw_measured(axes, markers)
    _draw_budget(axes, limit_ms)
    _draw_labels(axes, front, markers, limit_ms)
    _draw_legend(figure, axes)
    write_png(figure, path)


def _join(objectives: Sequence[str]) -> str:
    """Return objectives as text: ``accuracy, latency and memory``."""
    *first, last = map(noun_of, objectives)
    return f"{', '.join(first)} and {last}" if first else last


def _set_limits(
    axes: Axes, front: Front, markers: Sequence[Marker], references: Front | None, limit_ms: float | None
) -> None:
    ends = [end for marker in markers for end in (marker.latency_ms, *marker.interval_ms)]
    fronts = [front] if references is None else [front, references]
    latencies = np.concatenate([*(each.latency_ms for each in fronts), ends])
    percents = 100 * np.concatenate([*(each.accuracy for each in fronts), [marker.accuracy for marker in markers]])
    left, right = _span(latencies)
    reach = _BUDGET_REACH * (right - left)
    if limit_ms is not None and left - reach < limit_ms < right + reach:
        left, right = min(left, limit_ms), max(right, limit_ms)
    axes.set_xlim(*_widen(left, right, 0.05))
    axes.set_ylim(*_widen(*_span(percents), 0.08))


def _span(values: Any) -> tuple[float, float]:
    """Return the smallest and the largest value; around a single value, a span of a tenth of it."""
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.05 * abs(low) - 1e-9, high + 0.05 * abs(high) + 1e-9)


def _widen(low: float, high: float, share: float) -> tuple[float, float]:
    return low - share * (high - low), high + share * (high - low)


def _draw_predicted(figure: Figure, axes: Axes, front: Front) -> None:
    stair = _stair_corners(axes, front)
    axes.plot(stair[:, 0], stair[:, 1], color=QUIET, linewidth=1.4, zorder=2, label="best predicted within a latency")
    megabytes = front.peak_bytes / 1e6
    low, high = _span(megabytes)
    points = axes.scatter(
        front.latency_ms, 100 * front.accuracy, c=megabytes, cmap="viridis_r", vmin=low, vmax=high, s=34,
        edgecolors="white", linewidths=0.6, zorder=3, label="predicted",
    )  # fmt: skip
    bar = figure.colorbar(points, cax=figure.add_axes(_COLOR_BAR))
    bar.set_label("predicted peak memory (MB)", size=12, color=INK, labelpad=10, fontfamily=FONT)
    bar.ax.tick_params(labelsize=11, colors=INK, labelfontfamily=FONT)
    bar.ax.ticklabel_format(useOffset=False, style="plain")
    bar.outline.set_visible(False)


def _draw_references(axes: Axes, references: Front | None) -> None:
    if references is not None:
        axes.plot(
            references.latency_ms, 100 * references.accuracy, "x", color=INK, markersize=8, markeredgewidth=1.6,
            zorder=2.5, label="smallest, largest at each resolution",
        )  # fmt: skip


def _stair_corners(axes: Axes, front: Front) -> Pixels:
    """Return the corners (M, 2) of the best accuracy (%) within each latency (ms), up to the right edge."""
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
        markerfacecolor=ACCENT, markeredgecolor="white", markeredgewidth=1.5, ecolor=ACCENT, elinewidth=2,
        capsize=5, capthick=2, zorder=5, label="measured, with 95% interval of the median",
    )  # fmt: skip


def _draw_budget(axes: Axes, limit_ms: float | None) -> None:
    """Draw the budget as a line with its name above the plot; beyond the edges only its name, with an arrow."""
    if limit_ms is None:
        return
    left, right = axes.get_xlim()
    text, place, align = f"budget {format_ms(limit_ms)}", (limit_ms - left) / (right - left), "center"
    if place > 1:
        text, place, align = f"{text} →", 1.0, "right"
    elif place < 0:
        text, place, align = f"← {text}", 0.0, "left"
    else:
        axes.axvline(
            limit_ms, color=_BUDGET_COLOR, linewidth=1.8, linestyle=(0, (6, 4)), zorder=1.5, label="latency budget"
        )
    axes.text(
        place, 1.01, text, transform=axes.transAxes, ha=align, va="bottom", size=12, weight="bold", color=_BUDGET_COLOR,
        fontfamily=FONT,
    )  # fmt: skip


def _draw_labels(axes: Axes, front: Front, markers: Sequence[Marker], limit_ms: float | None) -> None:
    """Draw the names and numbers of the markers, each in a free place near its marker."""
    if not markers:
        return
    places = [(marker.latency_ms, 100 * marker.accuracy) for marker in markers]
    texts = [_draw_label(axes, marker, place) for marker, place in zip(markers, places, strict=True)]
    sizes = np.array([_box_size(text) for text in texts])
    frame = axes.get_window_extent()
    centres = choose_label_centres(
        axes.transData.transform(places),
        sizes,
        _obstacle_points(axes, front, markers, limit_ms),
        (frame.x0, frame.y0, frame.x1, frame.y1),
    )
    for text, centre in zip(texts, centres, strict=True):
        text.set_position((float(centre[0]), float(centre[1])))


def _draw_label(axes: Axes, marker: Marker, place: tuple[float, float]) -> Annotation:
    box = {"boxstyle": f"round,pad={_BOX_PADDING}", "facecolor": "white", "edgecolor": ACCENT, "alpha": 0.95}
    return axes.annotate(
        f"{marker.name}\n{format_ms(marker.latency_ms)}, {marker.accuracy:.1%}",
        place, xytext=(0, 0), textcoords="figure pixels", ha="center", va="center", size=_LABEL_POINTS, color=INK,
        fontfamily=FONT, linespacing=1.35, zorder=6, bbox=box,
        arrowprops={"arrowstyle": "-", "color": ACCENT, "linewidth": 1.2, "shrinkB": 7},
    )  # fmt: skip


def _box_size(text: Annotation) -> tuple[float, float]:
    """Return the width and height of a label's box in pixels."""
    from matplotlib.text import Text

    extent = Text.get_window_extent(text)  # an Annotation's own extent includes what it points to
    padding = 2 * _BOX_PADDING * _LABEL_POINTS * DPI / 72
    return extent.width + padding, extent.height + padding


def _obstacle_points(axes: Axes, front: Front, markers: Sequence[Marker], limit_ms: float | None) -> Pixels:
    """Return the pixels (M, 2) that labels should not cover: points, stair, intervals and the budget's line."""
    to_pixels = axes.transData.transform
    lines = [_stair_corners(axes, front)]
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
        frameon=False, prop={"family": FONT, "size": 11}, labelcolor=INK, columnspacing=2.4, handletextpad=0.8,
        handler_map={ErrorbarContainer: HandlerErrorbar(xerr_size=1.5)}, handlelength=2.6,
    )  # fmt: skip
