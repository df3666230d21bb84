"""Guarding latency: a baseline of a model file on its target, and the check of a later file against it. No torch."""

from __future__ import annotations

from edgenas.regression.baseline import Baseline, record_baseline
from edgenas.regression.gate import LatencyCheck, check_latency

__all__ = ["Baseline", "LatencyCheck", "check_latency", "record_baseline"]
