"""Guarding latency: the baseline of a model file on its target, and the check of later files against it."""

from __future__ import annotations

from edgenas.regression.baseline import Baseline, record_baseline
from edgenas.regression.gate import LatencyCheck, check_latency

__all__ = ["Baseline", "LatencyCheck", "check_latency", "record_baseline"]
