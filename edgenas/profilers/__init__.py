"""Profilers: measuring model files on a device, and the latency table of a search space."""

from __future__ import annotations

from edgenas.profilers.measure import measure, measure_many
from edgenas.profilers.measurement import Measurement
from edgenas.profilers.settings import MeasureSettings
from edgenas.profilers.table import LatencyTable

__all__ = ["LatencyTable", "MeasureSettings", "Measurement", "measure", "measure_many"]
