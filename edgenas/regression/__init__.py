"""Guarding latency: a baseline of a model file on its target, and the check of a later file against it. No torch."""

from __future__ import annotations

from edgenas.regression.baseline import Baseline, record
from edgenas.regression.gate import Check, check

__all__ = ["Baseline", "Check", "check", "record"]
