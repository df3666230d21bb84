"""Checking a device: each step that measuring on it needs, tried in turn."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from edgenas.devices import Deadline, Device, Target, connect_device
from edgenas.devices.answers import STRICT, PathText, read_answer
from edgenas.devices.profile import AGENT, check_cores
from edgenas.errors import EdgeNASError, MissingExtraError, ModelError, one_line
from edgenas.export import build_onnx, random_weights
from edgenas.files import Amount, Count, write_bytes
from edgenas.on_device.work_folder import WorkFolder
from edgenas.profilers import MeasureSettings
from edgenas.profilers.measure.agent_run import AgentRun
from edgenas.profilers.measure.benchmark_run import BenchmarkRun, find_benchmark_program
from edgenas.profilers.measure.board_conditions import read_conditions_by_shell
from edgenas.profilers.measure.protocol import (
    Answer,
    Conditions,
    Failed,
    Hello,
    Result,
    push_agent_files,
    send_agent,
)
from edgenas.profilers.measure.validity import assess_validity
from edgenas.runtimes import Runtime, SourceModel, load_runtime
from edgenas.shell import format_command
from edgenas.space import MobileNetV3
from edgenas.units import format_bytes

_STEP_SECONDS = 30.0
_LOCK_SECONDS = 10.0
_FREE_BYTES = 100_000_000
_CLOCK_SECONDS = 60.0
_OLDEST_PYTHON = (3, 8)
_STEPS_ON_DEVICE = ("python", "work folder", "clock", "lock", "runtime", "conditions")
_STEPS_WITHOUT_AGENT = ("lock", "runtime", "conditions")
# Of the small model that shows whether a runtime works: one process of a few runs.
_SETTINGS = MeasureSettings(
    processes=1, max_processes=1, max_runs=10, min_seconds=0, max_seconds=0.05, warmup_runs=1, warmup_seconds=0
)
_KEY_STATES = {"unknown": "is not in", "changed": "is another than that in", "revoked": "is revoked in"}
_INSTALL_PYTHON = (
    "install it: sudo apt-get install python3, bring it along: edgenas device setup --self-contained,"
    " or name another one as python in the profile"
)
_WORK_FOLDER = (
    "import json, os, time; disk = os.statvfs('.'); noexec = bool(disk.f_flag & getattr(os, 'ST_NOEXEC', 0));"
    " print(json.dumps({'time': time.time(), 'folder': os.getcwd(), 'free_bytes': disk.f_bavail * disk.f_frsize,"
    " 'noexec': noexec}))"
)
_CONDITIONS = (
    "import json, pathlib, sys, board;"
    " print(json.dumps(board.read_conditions(pathlib.Path('/'), json.loads(sys.argv[1]))))"
)


Kind = TypeVar("Kind")


@dataclass(frozen=True)
class WorkFolderState:
    """What a device says of its work folder, how its disk is mounted, and of its clock in seconds since 1970."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    time: Amount
    folder: PathText
    free_bytes: Count
    noexec: bool


@dataclass(frozen=True)
class CheckResult:
    """The result of one step: its status, a text about what was found, and a remedy where one is needed.

    With ``warning`` measuring works, but its numbers may not be valid, or setup would fail.
    """

    name: str
    status: Literal["ok", "warning", "failed", "not tried"]
    found: str
    remedy: str = ""


def check_device(target: Target) -> list[CheckResult]:
    """Try each step that measuring on a target needs.

    Args:
        target: The device is reached, and its runtime runs a small model
            with the target's providers, threads and affinity.

    Returns:
        One result a step, several for conditions. After a failure the further
        steps are ``not tried``.
    """
    results: list[CheckResult] = []
    try:
        for result in _run_steps(target):
            results.append(result)
    except _StepError as error:
        results.append(_error_to_failed_result(error, target))
    connecting = ("reach", "host key", "login") if _is_ssh(target) else ("connection",)
    tried = {result.name for result in results}
    on_device = _STEPS_ON_DEVICE if target.runner == AGENT else _STEPS_WITHOUT_AGENT
    untried = [name for name in (*connecting, *on_device) if name not in tried]
    return [*results, *(CheckResult(name, "not tried", "needs what failed") for name in untried)]


def all_passed(results: Sequence[CheckResult]) -> bool:
    """Return whether a device can be measured on: each step is ok or a warning."""
    return all(result.status in ("ok", "warning") for result in results)


def read_conditions(device: Device, cpus: Sequence[int] | None = None) -> Conditions:
    """Return the conditions on a device now, in the form that they have in a measurement.

    Args:
        device: The connected device, which is sent the agent's files.
        cpus: The CPUs to read frequencies of, all by default.

    Raises:
        EdgeNASError: The device's Python cannot read them.
        DeviceError: It answers something else.
    """
    push_agent_files(device)
    return _run_json_program(Conditions, device, _CONDITIONS, json.dumps(None if cpus is None else list(cpus)))


class _StepError(Exception):
    """The failure of a step, with the step's name."""

    def __init__(self, step: str, message: str) -> None:
        super().__init__(message)
        self.step, self.message = step, message


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    """Raise errors of edgenas as the failure of a step."""
    try:
        yield
    except EdgeNASError as error:
        raise _StepError(name, str(error)) from error


def _error_to_failed_result(error: _StepError, target: Target) -> CheckResult:
    """Split a message into what was found and the remedy, without the device's name before it."""
    message, profile = error.message, target.profile
    for label in (profile.name, profile.cli_name, getattr(profile.connection, "host", "")):
        message = message.removeprefix(f"{label}: ")
    found, semicolon, remedy = message.rpartition("; ")
    return CheckResult(error.step, "failed", found, remedy) if semicolon else CheckResult(error.step, "failed", message)


def _is_ssh(target: Target) -> bool:
    return target.profile.connection.kind == "ssh"


def _run_steps(target: Target) -> Iterator[CheckResult]:
    """Try all steps; raise _StepError at the first that fails."""
    if _is_ssh(target):
        yield from _check_host_key(target)
    connecting = "login" if _is_ssh(target) else "connection"
    with _step(connecting):
        device = connect_device(target.profile)
    with device:
        connection = target.profile.connection
        user = getattr(connection, "user", None)
        yield CheckResult(connecting, "ok", f"as {user}" if user else connection.kind)
        yield from _run_steps_on_device(device, target)


def _check_host_key(target: Target) -> Iterator[CheckResult]:
    from edgenas.devices.ssh.config import SshConnection
    from edgenas.devices.ssh.connection import fetch_host_key

    connection = target.profile.connection
    assert isinstance(connection, SshConnection)
    with _step("reach"):
        key = fetch_host_key(connection, Deadline(_STEP_SECONDS))
    yield CheckResult("reach", "ok", key.host)
    if key.state == "known":
        yield CheckResult("host key", "ok", f"{key.type} {key.fingerprint}")
        return
    trust = f"run: {format_command('device', 'trust')} {target.profile.cli_name}"
    remedy = "give the device another one" if key.state == "revoked" else trust
    found = f"the {key.type} key {key.fingerprint} of {key.host} {_KEY_STATES[key.state]} {key.file}"
    raise _StepError("host key", f"{found}; {remedy}")


def _run_steps_on_device(device: Device, target: Target) -> Iterator[CheckResult]:
    if target.runner != AGENT:
        yield from _check_benchmark_program(device, target)
        return
    with _step("python"):
        python = _check_python(device)
    yield python
    if python.status == "failed":
        return
    with _step("work folder"):
        folder = _run_json_program(WorkFolderState, device, _WORK_FOLDER)
    yield _work_folder_result(folder, target)
    yield _clock_result(folder.time - time.time())
    with _step("threads"):
        check_cores(target.profile.name, target.threads, device.facts()["cores"])
    with contextlib.ExitStack() as stack:
        with _step("lock"):
            stack.enter_context(device.lock(Deadline(_LOCK_SECONDS)))
        yield CheckResult("lock", "ok", "free")
        with _step("runtime"):
            runtime = _run_small_model(device, target)
        yield runtime
        with _step("conditions"):
            conditions = read_conditions(device, target.affinity)
        yield from _conditions_results(conditions, target)


def _check_benchmark_program(device: Device, target: Target) -> Iterator[CheckResult]:
    """Let the runtime's own benchmark program run a small model; it needs no Python there."""
    with contextlib.ExitStack() as stack:
        with _step("lock"):
            stack.enter_context(device.lock(Deadline(_LOCK_SECONDS)))
        yield CheckResult("lock", "ok", "free")
        with _step("runtime"), WorkFolder() as folder:
            check_cores(target.profile.name, target.threads, device.facts()["cores"])
            version, _ = find_benchmark_program(target)
            runtime = load_runtime(target.runtime)
            models = []
            if (data := _try_build_small_model(runtime)) is not None:
                write_bytes(folder / f"small{runtime.suffix}", data)
                models.append(device.push(folder / f"small{runtime.suffix}", f"small{runtime.suffix}"))
            answers = list(BenchmarkRun(device, target, models, _SETTINGS).iter_answers())[1:]
        yield _runtime_result(f"{target.runtime} {version} by {target.runner}", next(iter(answers), None), target)
        with _step("conditions"):
            conditions = read_conditions_by_shell(device, target.affinity)
        yield from _conditions_results(conditions, target)


def _check_python(device: Device) -> CheckResult:
    version: str | None = device.facts()["python"]
    if version is None:
        raise EdgeNASError(f"{device.python} cannot be used there; {_INSTALL_PYTHON}")
    found = f"{version}, {device.python}"
    if tuple(map(int, version.split(".")[:2])) >= _OLDEST_PYTHON:
        return CheckResult("python", "ok", found)
    remedy = "install Python 3.8 or newer there and name it as python in the profile"
    return CheckResult("python", "failed", found, remedy)


def _run_json_program(kind: type[Kind], device: Device, program: str, *arguments: str) -> Kind:
    """Return what a Python program prints on the device as JSON. Raise EdgeNASError when it prints nothing."""
    done = device.run([device.python, "-c", program, *arguments], deadline=Deadline(_STEP_SECONDS))
    if done.exit_status or not done.stdout:
        raise EdgeNASError(f"{device.python} cannot be used there ({done.failure}); {_INSTALL_PYTHON}")
    return read_answer(kind, done.stdout, device.name)


def _work_folder_result(folder: WorkFolderState, target: Target) -> CheckResult:
    found = f"{folder.folder}, {format_bytes(folder.free_bytes)} free"
    if folder.free_bytes < _FREE_BYTES:
        return CheckResult("work folder", "failed", found, "free space there, or set work_dir in the profile")
    if folder.noexec and _is_ssh(target) and target.profile.python is None:
        found += ", mounted noexec: edgenas device setup cannot install runtimes there"
        return CheckResult("work folder", "warning", found, "set work_dir in the profile to a folder on another disk")
    return CheckResult("work folder", "ok", found)


def _clock_result(seconds_ahead: float) -> CheckResult:
    if abs(seconds_ahead) <= _CLOCK_SECONDS:
        return CheckResult("clock", "ok", "as here")
    found = f"{abs(seconds_ahead):.0f} s {'ahead of' if seconds_ahead > 0 else 'behind'} this machine's"
    return CheckResult("clock", "warning", found, "set it there: sudo timedatectl set-ntp true")


def _run_small_model(device: Device, target: Target) -> CheckResult:
    """Let the agent import the runtime, look for the providers, and run a small model once and briefly."""
    runtime = load_runtime(target.runtime, "nothing is known about runtime")
    command = send_agent(device, runtime)
    with WorkFolder() as folder:
        models = []
        if (data := _try_build_small_model(runtime)) is not None:
            path = folder / f"small{runtime.suffix}"
            write_bytes(path, data)
            models.append({"id": 0, "path": device.push(path, path.name)})
        request = {"settings": _SETTINGS.to_dict()}
        run = AgentRun(device, target, command, models, _SETTINGS.model_timeout_seconds, request=request)
        hello, *answers = run.iter_answers()
    assert isinstance(hello, Hello)
    name = f"{target.runtime} {hello.versions.get(target.runtime, 'of unknown version')}"
    return _runtime_result(name, answers[0] if answers else None, target)


def _try_build_small_model(runtime: Runtime) -> bytes | None:
    """Return a file for a runtime; None where the libraries that write it are missing."""
    architecture = MobileNetV3(width=0.35, resolutions=(224,), classes=10).smallest
    try:
        return runtime.make_float_file(SourceModel(build_onnx(architecture, random_weights(architecture))))
    except (MissingExtraError, ModelError):
        return None


def _runtime_result(runtime: str, answer: Answer | None, target: Target) -> CheckResult:
    """Return whether the small model ran, and on which providers, where these are known."""
    if isinstance(answer, Failed):
        found = f"{runtime} cannot run a small model ({answer.reason}: {one_line(answer.detail)})"
        setup = f"{format_command('device', 'setup')} {target.profile.cli_name}"
        remedy = f"correct providers and options in the profile, or run: {setup}"
        return CheckResult("runtime", "failed", found, remedy)
    placement = answer.placement if isinstance(answer, Result) else None
    validity = assess_validity({}, {}, placement=placement, providers=target.providers)
    if validity.status == "rejected":
        found, _, remedy = validity.reasons[0].partition(": ")
        return CheckResult("runtime", "warning", f"{runtime}, {found}", remedy)
    nodes = [f"{count} nodes on {provider}" for provider, count in (placement or {}).items()]
    return CheckResult("runtime", "ok", ", ".join([runtime, *(nodes or target.providers)]))


def _conditions_results(conditions: Conditions, target: Target) -> Iterator[CheckResult]:
    """Yield a warning for each condition that would make a measurement invalid, or that they are fine."""
    undisturbed = {**conditions, "interrupted_share": 0.0}
    validity = assess_validity(conditions, undisturbed, power_mode=target.profile.power_mode)
    if validity.status == "rejected":
        for reason in validity.reasons:
            found, _, remedy = reason.partition(": ")
            yield CheckResult("conditions", "warning", found, remedy)
    else:
        status: Literal["ok", "warning"] = "ok" if validity.status == "valid" else "warning"
        yield CheckResult("conditions", status, str(validity))
