"""The latency gate: the baseline of a model on its target, and the check of later models against it."""

from __future__ import annotations

from edgenas.regression.baseline import Baseline, record_baseline
from edgenas.regression.blame import OperatorChange, OperatorComparison, compare_operators
from edgenas.regression.check import check_model
from edgenas.regression.model_check import ModelCheck
from edgenas.regression.placement import PlacementComparison, compare_placements

__all__ = [
    "Baseline",
    "ModelCheck",
    "OperatorChange",
    "OperatorComparison",
    "PlacementComparison",
    "check_model",
    "compare_operators",
    "compare_placements",
    "record_baseline",
]
