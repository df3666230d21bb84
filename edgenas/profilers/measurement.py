"""One measured model: raw samples, where and how they were taken, and whether they can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from edgenas.errors import MeasurementError
from edgenas.files import parse, read_document, write_document
from edgenas.profilers.statistics import median_interval, percentile
from edgenas.profilers.trust import Verdict
from edgenas.units import format_ms

KIND = "measurement"
VERSION = 1


@dataclass(frozen=True)
class Measurement:
    """What running one model file on one target gave. Data only; everything derived is computed from the samples.

    ``samples_ms``: single runs in the order taken, after warm-up, to the
    nanosecond. ``peak_bytes``: the most memory that the process held above one
    with an empty session, None where the device does not say. ``load_ms``: from
    file to session. ``device_s``: device time that it took in all. ``facts``: what
    identifies the device; ``versions``: of the runtime and the agent's Python.
    ``synthetic``: the numbers are made up. ``unit`` is that of the samples.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    model_sha256: str
    target: Mapping[str, Any]
    samples_ms: tuple[float, ...]
    peak_bytes: int | None
    load_ms: float
    device_s: float
    facts: Mapping[str, Any]
    versions: Mapping[str, str]
    conditions_before: Mapping[str, Any]
    conditions_after: Mapping[str, Any]
    verdict: Verdict
    synthetic: bool
    settings: Mapping[str, Any]
    unit: Literal["ms"] = "ms"

    def __post_init__(self) -> None:
        if len(self.samples_ms) < 2 or not all(0 < value < float("inf") for value in self.samples_ms):
            number = len(self.samples_ms)
            raise MeasurementError(
                f"a measurement must have at least 2 samples, all above 0 ms, but got {number}; measure again"
            )

    @cached_property
    def _interval(self) -> tuple[float, float, float]:
        return median_interval(self.samples_ms)

    @property
    def median_ms(self) -> float:
        """The median latency of one run."""
        return self._interval[0]

    @property
    def interval_ms(self) -> tuple[float, float]:
        """The ends of the 95% confidence interval of the median."""
        return self._interval[1:]

    @cached_property
    def p90_ms(self) -> float:
        """The latency that nine of ten runs stay below."""
        return percentile(self.samples_ms, 90)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain data; ``from_dict`` is the exact inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "measurement") -> Measurement:
        """The inverse of ``to_dict``; raises UsageError naming ``where`` for unknown keys and wrong values."""
        return parse(cls, dict(data), where)

    def save(self, path: Path) -> None:
        """Write it as an ``edgenas.measurement`` file."""
        write_document(path, KIND, VERSION, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Measurement:
        """Read what ``save`` wrote; raises FormatError when it is damaged or of another kind."""
        return cls.from_dict(read_document(path, KIND, VERSION), str(path))

    def __str__(self) -> str:
        low, high = self.interval_ms
        made_up = "synthetic, " if self.synthetic else ""
        return (
            f"{format_ms(self.median_ms)} (95% interval {format_ms(low)} to {format_ms(high)}, {made_up}{self.verdict})"
        )
