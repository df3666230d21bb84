"""Pictures: the front of a search, and the predicted times of a subnet's parts."""

from __future__ import annotations

from edgenas.report.front_plot import Marker, draw_front
from edgenas.report.part_times_plot import PartTime, draw_part_times

__all__ = ["Marker", "PartTime", "draw_front", "draw_part_times"]
