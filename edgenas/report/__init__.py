"""What a person looks at: the front as a picture."""

from __future__ import annotations

from edgenas.report.picture import Marker, draw_front

__all__ = ["Marker", "draw_front"]
