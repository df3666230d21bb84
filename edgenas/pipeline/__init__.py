"""The steps that join the rooms, and the run folder they work on."""

from edgenas.pipeline.run import Run

__all__ = ["Run"]
