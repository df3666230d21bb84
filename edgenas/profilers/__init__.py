"""Profilers: measuring model files on a device, and the latency table of a search space."""

from __future__ import annotations

from edgenas.profilers.latency.holdout import HoldoutReport
from edgenas.profilers.latency.published import PublishedTables
from edgenas.profilers.latency.table import LatencyTable
from edgenas.profilers.measure.measurement import Measurement
from edgenas.profilers.measure.model_files import ModelInputs
from edgenas.profilers.measure.models import MeasuredModels, RankedModel, measure_model, measure_models, rank_results
from edgenas.profilers.measure.operators import Operator, OperatorProfile, profile_operators
from edgenas.profilers.measure.result import MeasurementResult, compare_results
from edgenas.profilers.measure.rounds import MeasuringRounds
from edgenas.profilers.measure.session import MeasuringSession
from edgenas.profilers.measure.settings import MeasureSettings
from edgenas.profilers.measure.statistics import MIN_PROCESSES
from edgenas.profilers.measure.validity import Validity

__all__ = [
    "MIN_PROCESSES",
    "HoldoutReport",
    "LatencyTable",
    "MeasureSettings",
    "MeasuredModels",
    "Measurement",
    "MeasurementResult",
    "MeasuringRounds",
    "MeasuringSession",
    "ModelInputs",
    "Operator",
    "OperatorProfile",
    "PublishedTables",
    "RankedModel",
    "Validity",
    "compare_results",
    "measure_model",
    "measure_models",
    "profile_operators",
    "rank_results",
]
