"""Everything that measuring on a device will need, tried one by one."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgenas.devices import Deadline, Device, Target, connect_device
from edgenas.errors import EdgeNASError
from edgenas.profilers.measure.protocol import (
    MODEL_SUFFIXES,
    Answer,
    End,
    Failed,
    Hello,
    Result,
    Unable,
    check_models,
    device_error,
    one_line,
    read_answer,
    send_agent,
    target_request,
)
from edgenas.profilers.measure.reference_model import SETTINGS, reference_model
from edgenas.profilers.measure.validity import assess
from edgenas.units import format_bytes

_SECONDS = 30.0
_START_SECONDS = 180.0  # TensorRT's libraries on a slow card
_LOCK_SECONDS = 10.0
_FREE_BYTES = 100_000_000
_CLOCK_SECONDS = 60.0
_OLDEST_PYTHON = (3, 8)
_THERE = ("python", "work folder", "clock", "lock", "runtime", "conditions")
_KEY_STATES = {"unknown": "is not in", "changed": "is another than that in", "revoked": "is revoked in"}
_INSTALL_PYTHON = "install it: sudo apt-get install python3, or name another one as python in the profile"
_PROBE = (
    "import json, os, time; free = os.statvfs('.');"
    " print(json.dumps({'time': time.time(), 'folder': os.getcwd(), 'free_bytes': free.f_bavail * free.f_frsize}))"
)
_CONDITIONS = (
    "import json, pathlib, sys, board;"
    " print(json.dumps(board.read_conditions(pathlib.Path('/'), json.loads(sys.argv[1]))))"
)


@dataclass(frozen=True)
class CheckResult:
    """One thing that was tried: whether it works, what was found, and what mends it.

    ``warning`` means that measuring works, and that its numbers may not be trusted.
    """

    name: str
    status: Literal["ok", "warning", "failed", "not tried"]
    found: str
    remedy: str = ""


def passed(checks: list[CheckResult]) -> bool:
    """Whether a device can be measured on."""
    return all(check.status in ("ok", "warning") for check in checks)


class _StepError(Exception):
    """A step failed: its name, and why."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name, self.message = name, message


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    try:
        yield
    except EdgeNASError as error:
        raise _StepError(name, str(error)) from error


def check(target: Target) -> list[CheckResult]:
    """Try everything that measuring on a target needs. What cannot be tried after a failure is said to be so."""
    over_ssh = target.profile.connection.kind == "ssh"
    names = [*(("reach", "host key", "login") if over_ssh else ("connection",)), *_THERE]
    done: list[CheckResult] = []
    try:
        for each in _all(target, over_ssh):
            done.append(each)
    except _StepError as error:
        done.append(_failure(error.name, error.message, target))
    tried = {each.name for each in done}
    return [*done, *(CheckResult(name, "not tried", "needs what failed") for name in names if name not in tried)]


def _failure(name: str, message: str, target: Target) -> CheckResult:
    found = message
    for label in (target.profile.name, target.profile.cli_name, _host(target)):
        found = found.removeprefix(f"{label}: ")
    what, _, remedy = found.rpartition("; ")
    return CheckResult(name, "failed", what or remedy, remedy if what else "")


def _host(target: Target) -> str:
    return str(getattr(target.profile.connection, "host", ""))


def _all(target: Target, over_ssh: bool) -> Iterator[CheckResult]:
    if over_ssh:
        yield from _host_key(target)
    name = "login" if over_ssh else "connection"
    with _step(name):
        device = connect_device(target.profile)
    with device:
        yield CheckResult(name, "ok", _login(target))
        yield from _on_device(device, target)


def _host_key(target: Target) -> Iterator[CheckResult]:
    from edgenas.devices.ssh.config import SshConnection
    from edgenas.devices.ssh.connection import fetch_host_key

    connection = target.profile.connection
    assert isinstance(connection, SshConnection)
    with _step("reach"):
        key = fetch_host_key(connection, Deadline(_SECONDS))
    yield CheckResult("reach", "ok", key.host)
    if key.state == "known":
        yield CheckResult("host key", "ok", f"{key.type} {key.fingerprint}")
        return
    trust = f"run: edgenas device trust {target.profile.cli_name}"
    remedy = "give the device another one" if key.state == "revoked" else trust
    found = f"the {key.type} key {key.fingerprint} of {key.host} {_KEY_STATES[key.state]} {key.file}"
    raise _StepError("host key", f"{found}; {remedy}")


def _login(target: Target) -> str:
    connection = target.profile.connection
    user = getattr(connection, "user", None)
    return f"as {user}" if user else connection.kind


def _on_device(device: Device, target: Target) -> Iterator[CheckResult]:
    with _step("python"):
        version = _version(device)
    yield _python(version, device.python)
    if _parts(version) < _OLDEST_PYTHON:
        return
    with _step("work folder"):
        seen = _ask(device, [device.python, "-c", _PROBE])
    yield _folder(seen)
    yield _clock(seen["time"] - time.time())
    with contextlib.ExitStack() as stack:
        with _step("lock"):
            stack.enter_context(device.lock(Deadline(_LOCK_SECONDS)))
        yield CheckResult("lock", "ok", "free")
        with _step("runtime"):
            found = _runtime(device, target)
        yield found
        with _step("conditions"):
            now = conditions(device, target.affinity)
        yield from _conditions(now, target)


def _version(device: Device) -> str:
    """The version of the interpreter there; raises EdgeNASError when it does not say one."""
    version: str | None = device.facts()["python"]
    if version is None:
        raise EdgeNASError(f"{device.python} cannot be used there; {_INSTALL_PYTHON}")
    return version


def _parts(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


def _ask(device: Device, command: list[str]) -> dict[str, Any]:
    """What a small program prints there as JSON; raises EdgeNASError when it does not."""
    done = device.run(command, deadline=Deadline(_SECONDS))
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        said = done.stderr.strip().rpartition("\n")[2] or f"status {done.exit_status}"
        raise EdgeNASError(f"{command[0]} cannot be used there ({said}); {_INSTALL_PYTHON}") from None
    return answer


def _python(version: str, path: str) -> CheckResult:
    found = f"{version}, {path}"
    if _parts(version) >= _OLDEST_PYTHON:
        return CheckResult("python", "ok", found)
    return CheckResult(
        "python", "failed", found, "install Python 3.8 or newer there and name it as python in the profile"
    )


def _folder(seen: dict[str, Any]) -> CheckResult:
    free = seen["free_bytes"]
    found = f"{seen['folder']}, {format_bytes(free)} free"
    if free >= _FREE_BYTES:
        return CheckResult("work folder", "ok", found)
    return CheckResult("work folder", "failed", found, "free space there, or set work_dir in the profile")


def _runtime(device: Device, target: Target) -> CheckResult:
    """Let the agent import the runtime, look for the providers, and run the reference model once and briefly."""
    check_models([], target)
    command, models = send_agent(device, target.runtime), _model(device, target)
    request = {**target_request(target), "settings": SETTINGS.to_dict(), "models": models}
    lines: list[str] = []
    data = json.dumps(request).encode() + b"\n"
    deadline = Deadline(_START_SECONDS + SETTINGS.model_timeout_seconds)
    done = device.run(command, deadline=deadline, stdin=data, on_line=lines.append)
    where, setup = target.profile.name, f"run: edgenas device setup {target.profile.cli_name}"
    answers = [read_answer(line, Result, where) for line in lines]
    if answers and isinstance(answers[0], Unable):
        said = str(device_error(answers[0], where, target, device.python))
        found, _, remedy = said.removeprefix(f"{where}: ").partition("; ")
        return CheckResult("runtime", "failed", found, remedy)
    if not answers or not isinstance(answers[0], Hello) or not isinstance(answers[-1], End):
        last = done.stderr.strip().rpartition("\n")[2] or f"status {done.exit_status}"
        return CheckResult("runtime", "failed", f"the agent ended too early ({last})", setup)
    runtime = f"{target.runtime} {answers[0].versions.get(target.runtime, 'of unknown version')}"
    return _ran(runtime, answers[1], target)


def _model(device: Device, target: Target) -> list[dict[str, Any]]:
    """The reference model's place in a request; empty where the library that writes it is missing here."""
    (ending, *_) = MODEL_SUFFIXES[target.runtime]
    data = reference_model(ending)
    if data is None:
        return []
    with tempfile.TemporaryDirectory(prefix="edgenas-") as folder:
        path = Path(folder, f"reference{ending}")
        path.write_bytes(data)
        return [{"id": 0, "path": device.push(path, path.name)}]


def _ran(runtime: str, answer: Answer, target: Target) -> CheckResult:
    """What became of the reference model: that it ran, and where; nothing is known of it where there was none."""
    if isinstance(answer, Failed):
        found = f"{runtime} cannot run a small model ({answer.reason}: {one_line(answer.detail)})"
        remedy = f"correct providers and options in the profile, or run: edgenas device setup {target.profile.cli_name}"
        return CheckResult("runtime", "failed", found, remedy)
    placement = answer.placement if isinstance(answer, Result) else None
    validity = assess({}, {}, placement=placement, providers=target.providers)
    if validity.status == "rejected":
        found, _, remedy = validity.reasons[0].partition(": ")
        return CheckResult("runtime", "warning", f"{runtime}, {found}", remedy)
    nodes = [f"{count} nodes on {provider}" for provider, count in (placement or {}).items()]
    return CheckResult("runtime", "ok", ", ".join([runtime, *(nodes or target.providers)]))


def _clock(ahead: float) -> CheckResult:
    if abs(ahead) <= _CLOCK_SECONDS:
        return CheckResult("clock", "ok", "as here")
    found = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    return CheckResult("clock", "warning", found, "set it there: sudo timedatectl set-ntp true")


def conditions(device: Device, cpus: Sequence[int] | None = None) -> dict[str, Any]:
    """The conditions on a device now, as the agent gives them with a measurement. Raises EdgeNASError."""
    send_agent(device, "onnxruntime")
    return _ask(device, [device.python, "-c", _CONDITIONS, json.dumps(None if cpus is None else list(cpus))])


def _conditions(now: dict[str, Any], target: Target) -> Iterator[CheckResult]:
    validity = assess(now, {**now, "interrupted_share": 0.0}, power_mode=target.profile.power_mode)
    if validity.status == "rejected":
        for reason in validity.reasons:
            found, _, remedy = reason.partition(": ")
            yield CheckResult("conditions", "warning", found, remedy)
    else:
        status: Literal["ok", "warning"] = "ok" if validity.status == "valid" else "warning"
        yield CheckResult("conditions", status, str(validity))
