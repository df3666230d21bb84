"""Settings of a measurement: how long and how often a model is run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from edgenas.errors import UsageError

MAX_RUNS = 20_000  # the samples of one process travel in one answer, whose size is limited


@dataclass(frozen=True)
class MeasureSettings:
    """Settings of a measurement: warm-up, precision, and the most time it may take.

    A model is run in ``processes`` processes, and in more, up to
    ``max_processes``, until half the 95% interval of its median is at most
    ``relative_half_width`` of it, or the model has taken ``total_seconds``.

    In each process, runs are timed until they alone would give that interval
    and span ``min_seconds`` (the noise of a machine changes within tenths
    of a second), or until ``max_seconds`` or ``max_runs`` are used up. There are never
    fewer than ``min_runs``, or than three where one takes longer than ``max_seconds``.
    Of a model so fast that ``max_runs`` would not span ``min_seconds``, every
    n-th run is kept. A process that takes longer than ``model_timeout_seconds``
    is ended, and the model fails.

    Raises:
        UsageError: for values that break a rule, with the rule.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    relative_half_width: float = 0.02
    processes: int = 6
    max_processes: int = 24
    total_seconds: float = 20.0
    min_runs: int = 10
    max_runs: int = 200
    min_seconds: float = 0.1
    max_seconds: float = 0.25
    warmup_runs: int = 3
    warmup_seconds: float = 0.5
    model_timeout_seconds: float = 300.0

    def __post_init__(self) -> None:
        _require(0 < self.relative_half_width < 1, "0 < relative_half_width < 1", self.relative_half_width)
        processes = (self.processes, self.max_processes)
        _require(1 <= self.processes <= self.max_processes, "1 <= processes <= max_processes", processes)
        _require(self.total_seconds >= 0, "total_seconds >= 0", self.total_seconds)
        runs = (self.min_runs, self.max_runs)
        _require(2 <= self.min_runs <= self.max_runs <= MAX_RUNS, f"2 <= min_runs <= max_runs <= {MAX_RUNS}", runs)
        seconds = (self.min_seconds, self.max_seconds)
        _require(0 <= self.min_seconds <= self.max_seconds, "0 <= min_seconds <= max_seconds", seconds)
        _require(self.warmup_runs >= 1, "warmup_runs >= 1", self.warmup_runs)
        _require(self.warmup_seconds >= 0, "warmup_seconds >= 0", self.warmup_seconds)
        _require(self.model_timeout_seconds > 0, "model_timeout_seconds > 0", self.model_timeout_seconds)

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as plain data."""
        return asdict(self)


def _require(holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise UsageError(f"{rule} must hold, but got {value}")
