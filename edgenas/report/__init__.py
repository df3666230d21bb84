"""What a person looks at: the front as a picture, and where a subnet's time goes."""

from __future__ import annotations

from edgenas.report.bars import PartTime, draw_part_times
from edgenas.report.picture import Marker, draw_front

__all__ = ["Marker", "PartTime", "draw_front", "draw_part_times"]
