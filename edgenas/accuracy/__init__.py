"""Accuracy of subnets: evaluated on a data set, and predicted."""

from typing import TYPE_CHECKING, Any

from edgenas.accuracy.predictor import AccuracyPredictor
from edgenas.accuracy.released import ReleasedPredictor

if TYPE_CHECKING:
    from edgenas.accuracy.evaluate import Evaluator as Evaluator

__all__ = ["AccuracyPredictor", "Evaluator", "ReleasedPredictor"]


def __getattr__(name: str) -> Any:
    # Loaded on first use, because predictors must work where torch is not installed.
    if name == "Evaluator":
        from edgenas.accuracy.evaluate import Evaluator

        return Evaluator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
