"""Runs: the folder, the steps that work on it, and their facade."""

from edgenas.pipeline.run import Run

__all__ = ["Run"]
