"""Profilers: measuring model files on a device, and the latency table of a search space."""

from __future__ import annotations

from edgenas.profilers.latency.holdout import HoldoutReport
from edgenas.profilers.latency.published import PublishedTables
from edgenas.profilers.latency.table import LatencyTable
from edgenas.profilers.measure.batch import Batch, measure_model
from edgenas.profilers.measure.measurement import Measurement
from edgenas.profilers.measure.result import MeasurementResult, compare_results
from edgenas.profilers.measure.session import measure_many
from edgenas.profilers.measure.settings import MeasureSettings
from edgenas.profilers.measure.statistics import FEWEST

__all__ = [
    "FEWEST",
    "Batch",
    "HoldoutReport",
    "LatencyTable",
    "MeasureSettings",
    "Measurement",
    "MeasurementResult",
    "PublishedTables",
    "compare_results",
    "measure_many",
    "measure_model",
]
