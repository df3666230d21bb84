"""The protocol of the agent on a device: the requests it is sent, and the answers it may give."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

from annotated_types import Interval, MaxLen, MinLen
from typing_extensions import TypedDict

from edgenas import on_device
from edgenas.devices import Device, Target
from edgenas.devices.answers import (
    FIRST_PROBLEM_ONLY,
    MAX_ENTRIES,
    STRICT,
    FreeText,
    Texts,
    read_answer,
)
from edgenas.devices.output import CompletedCommand, last_line
from edgenas.errors import DeviceError, ModelError, one_line
from edgenas.files import Amount, Count, Fraction, Milliseconds, Number, ShortText
from edgenas.on_device.onnxruntime_profile import MAX_OPERATORS, MAX_RANK, MAX_SHAPES
from edgenas.profilers.measure.model_files import ModelFile
from edgenas.profilers.measure.settings import MAX_RUNS
from edgenas.runtimes import Runtime, is_runtime, load_runtime
from edgenas.shell import format_command

_ON_DEVICE = Path(on_device.__file__).parent
_AGENT = "agent.py"
AGENT_FILES = (
    _AGENT, "board.py", "inputs.py", "model_process.py", "onnxruntime_profile.py", "sampling.py", "speed_probe.py",
)  # fmt: skip
# By the reason of a failure: what happened, and what to do about it.
_FAILURES = {
    "refused": ("is refused by", "check the file{checker} and export it again for this runtime"),
    "failed run": ("fails when it is run by", "its inputs may not suit it: give others with --inputs FILE.npz"),
    "broken runtime": ("cannot be run, as no model can by", "{install}, or correct the profile"),
    "too old": ("needs a newer version of", "{install}, or export it for an older version"),
    "crashed": ("crashes", "the file is the suspect, the device is well; another version of the runtime may run it"),
    "timeout": ("is too slow for", "use a smaller model or raise model_timeout_seconds"),
    "out of memory": ("needs too much memory for", "use a smaller model or free memory on the device"),
    "no profile": ("runs, but its operators cannot be listed by", "another version of the runtime may list them"),
}

LOCK_SECONDS = 600.0  # to wait for another edgenas that measures on the device
Times = Annotated[tuple[Milliseconds, ...], FIRST_PROBLEM_ONLY, MaxLen(MAX_RUNS)]
FilledShapes = Annotated[Mapping[ShortText, Annotated[tuple[Count, ...], MaxLen(MAX_ENTRIES)]], MaxLen(MAX_ENTRIES)]


# -- answers -----------------------------------------------------------------------


class Conditions(TypedDict, total=False):
    """The state of a board before or after a model ran; None where the device does not say."""

    __pydantic_config__ = STRICT  # type: ignore[misc] # pydantic's way to configure a typed dict
    time: Amount
    governor: ShortText | None
    frequency_khz: Count | None
    frequency_limit_khz: Count | None
    frequency_max_khz: Count | None
    frequency_base_khz: Count | None
    frequency_fixed: bool | None
    throttle_count: Count | None
    temperature_c: Number | None
    throttled_flags: Count | None
    load_average: Amount | None
    power_mode: ShortText | None
    power: Literal["battery", "mains"] | None
    gpu_frequency_khz: Count | None
    gpu_limit_khz: Count | None
    gpu_fixed: bool | None
    charging: bool | None
    battery_temperature_c: Number | None
    thermal_status: Count | None
    cooling: bool | None
    interrupted_share: Fraction | None
    lowest_frequency_khz: Count | None


class Facts(TypedDict, total=False):
    """Facts of the device that only a process there can tell."""

    __pydantic_config__ = STRICT  # type: ignore[misc] # see Conditions
    usable_cores: Count | None


@dataclass(frozen=True)
class Hello:
    """The agent runs, with these versions of Python and the runtime."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    kind: Literal["hello"]
    versions: Texts
    facts: Facts


@dataclass(frozen=True)
class Unable:
    """The device cannot run any model."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    kind: Literal["unable"]
    detail: str
    reason: Literal["affinity", "runtime"] = "runtime"


@dataclass(frozen=True)
class Failed:
    """One model could not be run; ``detail`` may be the runtime's own message and may hold any characters."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    kind: Literal["failed"]
    id: Count
    reason: Literal[
        "refused",
        "failed run",
        "broken runtime",
        "too old",
        "crashed",
        "timeout",
        "out of memory",
        "no profile",
        "inputs",
        "agent",
    ]
    detail: str
    device_s: Amount = 0.0
    conditions_before: Conditions | None = None
    conditions_after: Conditions | None = None


@dataclass(frozen=True)
class Result:
    """Samples of one model, with the fields of a Measurement."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    kind: Literal["result"]
    id: Count
    samples_ms: Annotated[Times, MinLen(2)]
    peak_bytes: Count | None
    load_ms: Amount
    device_s: Amount
    conditions_before: Conditions
    conditions_after: Conditions
    interrupted: Annotated[tuple[Count, ...], FIRST_PROBLEM_ONLY, MaxLen(MAX_RUNS)] = ()
    probe_ms: Times = ()
    running_s: Amount = 0.0
    placement: Annotated[Mapping[ShortText, Count], MaxLen(MAX_ENTRIES)] | None = None
    filled_shapes: FilledShapes = field(default_factory=dict)
    energy_mj: Number | None = None
    energy_rail: ShortText | None = None
    memory_reason: ShortText | None = None

    def __post_init__(self) -> None:
        if any(index >= len(self.samples_ms) for index in self.interrupted):
            raise ValueError("interrupted names runs that do not exist")
        if len(self.probe_ms) not in (0, len(self.samples_ms)):
            raise ValueError("there must be a speed probe time for each run, or none")


@dataclass(frozen=True)
class Stored:
    """One model ran once, and its outputs were stored in a file on the device."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    kind: Literal["result"]
    id: Count
    outputs: Annotated[int, Interval(ge=0, le=MAX_ENTRIES)]
    device_s: Amount = 0.0
    conditions_before: Conditions | None = None
    conditions_after: Conditions | None = None


Shapes = Annotated[tuple[Annotated[tuple[Count, ...], MaxLen(MAX_RANK)], ...], FIRST_PROBLEM_ONLY, MaxLen(MAX_SHAPES)]


@dataclass(frozen=True)
class RanOperator:
    """One operator of a model that ran under the runtime's profiler; its words may be the model's own."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: FreeText
    type: FreeText
    provider: FreeText
    us: Amount | None
    inputs: Shapes
    outputs: Shapes


@dataclass(frozen=True)
class Profiled:
    """One model ran under the runtime's profiler; ``has_graph`` says whether it stored its optimised graph."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    kind: Literal["result"]
    id: Count
    operators: Annotated[tuple[RanOperator, ...], FIRST_PROBLEM_ONLY, MinLen(1), MaxLen(MAX_OPERATORS)]
    has_graph: bool
    filled_shapes: FilledShapes = field(default_factory=dict)
    device_s: Amount = 0.0
    conditions_before: Conditions | None = None
    conditions_after: Conditions | None = None


@dataclass(frozen=True)
class End:
    """All models of the request were answered."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    kind: Literal["end"]
    count: Count


ResultKind = type[Result] | type[Stored] | type[Profiled]  # each mode of a request has its own
Answer = Hello | Unable | Failed | Result | Stored | Profiled | End


def parse_answer(line: str, result: ResultKind, where: str) -> Answer:
    """Parse one line of the agent.

    Args:
        line: JSON text.
        result: the kind of result that was asked for.
        where: the beginning of the error's message.

    Raises:
        DeviceError: for anything that the protocol does not allow.
    """
    from pydantic import Field

    kind: Any = Annotated[Hello | Unable | Failed | cast("Any", result) | End, Field(discriminator="kind")]
    answer: Answer = read_answer(kind, line, where)
    return answer


# -- requests ----------------------------------------------------------------------


def encode_request(target: Target, **fields: Any) -> bytes:
    """Return a request as the agent's standard input: how models are run on a target, and ``fields``."""
    request = {
        "runtime": target.runtime,
        "providers": list(target.providers),
        "provider_options": {name: dict(options) for name, options in target.options.items()},
        "precision": target.precision,
        "threads": target.threads,
        "affinity": None if target.affinity is None else list(target.affinity),
        **fields,
    }
    return json.dumps(request).encode() + b"\n"


def send_agent(device: Device, runtime: Runtime) -> list[str]:
    """Push the agent with the file of a runtime; return the command that starts it."""
    paths = push_agent_files(device)
    device.push(runtime.device_module, f"runtime_{runtime.name}.py")
    return [device.python, paths[AGENT_FILES.index(_AGENT)]]


def push_agent_files(device: Device) -> list[str]:
    """Push the agent's files, which serve every runtime; return their paths there."""
    return [device.push(_ON_DEVICE / name, name) for name in AGENT_FILES]


# -- errors ------------------------------------------------------------------------


def device_error(answer: Unable, where: str, target: Target, python: str) -> DeviceError:
    """Return the error for a device that cannot run any model, with the remedy."""
    if answer.reason == "affinity":
        remedy = "correct the CPUs of the profile's clusters, or let this user have those CPUs there"
        return DeviceError(f"{where}: {one_line(answer.detail)}; {remedy}")
    return DeviceError(f"{where}: {one_line(answer.detail)}; {_install_remedy(target, python)}, or correct the profile")


def model_error(model: ModelFile, answer: Failed, versions: Mapping[str, str], target: Target) -> ModelError:
    """Return the error for a model that could not be run, with the remedy."""
    runtime, detail = target.runtime, one_line(answer.detail)
    if answer.reason == "inputs":
        return ModelError(f"{model.path}: {detail}")
    if answer.reason == "agent":
        return ModelError(f"{model.path}: cannot be run, by a fault of edgenas ({detail}); please report it")
    happened, remedy = _FAILURES[answer.reason]
    remedy = remedy.format(
        checker=load_runtime(runtime).checker,
        install=_install_remedy(target, target.profile.python or "python3", upgrade=True),
    )
    for name, path in {model.remote_name: model.path, **model.parts}.items():
        detail = path.name.join(re.split(rf"\S*{re.escape(name)}", detail))
    version = versions.get(runtime, "of unknown version")
    return ModelError(f"{model.path}: {happened} {runtime} {version} ({detail.rstrip('.')}); {remedy}")


def ended_early_error(done: CompletedCommand, where: str) -> DeviceError:
    """Return the error for an agent that ended before its last answer, with how it ended or its last words."""
    if done.exit_status < 0:
        remedy = "free memory on the device or use smaller models, then try again" if done.was_killed else "try again"
        return DeviceError(f"{where}: the agent was {done.failure}; {remedy}")
    last = last_line(done.stderr)
    return DeviceError(f"{where}: the agent ended too early{f' ({last})' if last else ''}; try again")


def _install_remedy(target: Target, python: str, *, upgrade: bool = False) -> str:
    package = load_runtime(target.runtime).package if is_runtime(target.runtime) else target.runtime
    pip = f"{python} -m pip install {'-U ' if upgrade else ''}{package}"
    if target.profile.connection.kind == "local":
        return f"install it: {pip}"
    return f"install it there ({format_command('device', 'setup')} {target.profile.cli_name}, or {pip})"
