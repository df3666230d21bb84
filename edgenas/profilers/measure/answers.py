"""What the agent on a device may answer, line by line. Whatever else comes from there is refused by name."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, cast

from annotated_types import Interval, MaxLen, MinLen, Predicate
from typing_extensions import TypedDict

from edgenas.errors import DeviceError

# Numbers are finite and of the JSON type that is due; a key that nobody knows is an error.
_STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
_MOST = 1e15

Word = Annotated[str, MaxLen(1000), Predicate(str.isprintable)]
Count = Annotated[int, Interval(ge=0, le=2**62)]
Number = Annotated[float, Interval(ge=-_MOST, le=_MOST)]
Amount = Annotated[float, Interval(ge=0, le=_MOST)]
# A clock counts nanoseconds; no run takes longer than its process may.
Sample = Annotated[float, Interval(ge=1e-6, le=1e9)]
Share = Annotated[float, Interval(ge=0, le=1)]


class Conditions(TypedDict, total=False):
    """What board reads, None where the device does not say; and what the agent finds out while a model runs."""

    __pydantic_config__ = _STRICT  # type: ignore[misc] # pydantic's way to configure a typed dict
    time: Amount
    governor: Word | None
    frequency_khz: Count | None
    frequency_limit_khz: Count | None
    frequency_max_khz: Count | None
    frequency_base_khz: Count | None
    frequency_fixed: bool | None
    throttle_count: Count | None
    temperature_c: Number | None
    throttled_flags: Count | None
    load_average: Amount | None
    power_mode: Word | None
    power: Literal["battery", "mains"] | None
    gpu_frequency_khz: Count | None
    gpu_limit_khz: Count | None
    gpu_fixed: bool | None
    interrupted_share: Share | None
    baseline_probe_ms: Sample | None
    lowest_frequency_khz: Count | None


class Facts(TypedDict, total=False):
    """What a process alone can tell of the device."""

    __pydantic_config__ = _STRICT  # type: ignore[misc] # see Conditions
    usable_cores: Count | None


@dataclass(frozen=True)
class Hello:
    """The agent is there, and what it runs models with."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    kind: Literal["hello"]
    versions: Mapping[Word, Word]
    facts: Facts


@dataclass(frozen=True)
class Unable:
    """The device cannot run models at all."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    kind: Literal["unable"]
    detail: str
    reason: Literal["affinity", "runtime"] = "runtime"


@dataclass(frozen=True)
class Failed:
    """A model could not be run. ``detail`` is the runtime's own words, whatever these hold."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    kind: Literal["failed"]
    id: Count
    reason: Literal["refused", "too old", "crashed", "timeout", "out of memory"]
    detail: str
    device_s: Amount = 0.0
    conditions_before: Conditions | None = None
    conditions_after: Conditions | None = None


@dataclass(frozen=True)
class Result:
    """One model's samples and how they came about, as in a Measurement."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    kind: Literal["result"]
    id: Count
    samples_ms: Annotated[tuple[Sample, ...], MinLen(2)]
    peak_bytes: Count | None
    load_ms: Amount
    device_s: Amount
    conditions_before: Conditions
    conditions_after: Conditions
    interrupted: tuple[Count, ...] = ()
    probe_ms: tuple[Sample, ...] = ()
    running_s: Amount = 0.0
    placement: Mapping[Word, Count] | None = None
    energy_mj: Number | None = None
    energy_rail: Word | None = None
    memory_reason: Word | None = None

    def __post_init__(self) -> None:
        if any(place >= len(self.samples_ms) for place in self.interrupted):
            raise ValueError("interrupted names runs that there are not")
        if len(self.probe_ms) not in (0, len(self.samples_ms)):
            raise ValueError("there must be a pace for each run, or none")


@dataclass(frozen=True)
class Stored:
    """One model was run once, and what it made was stored in a file."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    kind: Literal["result"]
    id: Count
    outputs: Annotated[int, Interval(ge=0, le=10_000)]
    device_s: Amount = 0.0
    conditions_before: Conditions | None = None
    conditions_after: Conditions | None = None


@dataclass(frozen=True)
class End:
    """All models were answered."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    kind: Literal["end"]
    count: Count


Answer = Hello | Unable | Failed | Result | Stored | End


def read_answer(line: str, result: type[Result] | type[Stored], where: str) -> Answer:
    """One line of the agent; raises DeviceError beginning with ``where`` for anything that it does not say."""
    from pydantic import ValidationError

    try:
        answer: Answer = _adapter(cast(Any, result)).validate_json(line)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        said = f"{line[:80]!r}: {place}{': ' if place else ''}{problem['msg']}"
        raise DeviceError(f"{where}: answered nonsense ({said}); try again") from None
    return answer


@functools.cache
def _adapter(result: Any) -> Any:
    from pydantic import Field, TypeAdapter

    kinds: Any = Annotated[Hello | Unable | Failed | result | End, Field(discriminator="kind")]
    return TypeAdapter(kinds)
