"""Pictures: the front of a search, and the predicted times of a subnet's parts."""

from __future__ import annotations

from edgenas.report.front_plot import Marker, write_front_plot
from edgenas.report.part_times_plot import PartTime, write_part_times_plot

__all__ = ["Marker", "PartTime", "write_front_plot", "write_part_times_plot"]
