"""Profilers: measuring model files on a device, and the latency table of a search space."""

from __future__ import annotations

from edgenas.profilers.batch import Batch, measure
from edgenas.profilers.measure import measure_many
from edgenas.profilers.measurement import Measurement
from edgenas.profilers.published import PublishedTables
from edgenas.profilers.rounds import Rounds, compare_rounds
from edgenas.profilers.settings import MeasureSettings
from edgenas.profilers.statistics import FEWEST
from edgenas.profilers.table import LatencyTable

__all__ = [
    "FEWEST",
    "Batch",
    "LatencyTable",
    "MeasureSettings",
    "Measurement",
    "PublishedTables",
    "Rounds",
    "compare_rounds",
    "measure",
    "measure_many",
]
