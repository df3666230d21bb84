"""Guarding latency: the baseline of a model file on its target, and the check of later files against it."""

from __future__ import annotations

from edgenas.regression.baseline import Baseline, record_baseline
from edgenas.regression.blame import OperatorChange, OperatorComparison, compare_operators
from edgenas.regression.gate import LatencyCheck, check_latency
from edgenas.regression.placement import PlacementComparison, compare_placements

__all__ = [
    "Baseline",
    "LatencyCheck",
    "OperatorChange",
    "OperatorComparison",
    "PlacementComparison",
    "check_latency",
    "compare_operators",
    "compare_placements",
    "record_baseline",
]
