"""The latency gate: the baseline of a model on its target, and the check of later models against it."""

from __future__ import annotations

from edgenas.regression.baseline import Baseline, record_baseline
from edgenas.regression.check import check_model
from edgenas.regression.model_check import ModelCheck

__all__ = ["Baseline", "ModelCheck", "check_model", "record_baseline"]
