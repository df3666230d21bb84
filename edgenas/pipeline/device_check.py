"""Everything that measuring on a device will need, tried one by one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgenas.devices import Deadline, Device, Target, connect
from edgenas.errors import DeviceError, EdgeNASError
from edgenas.profilers.request import describe, send_agent, unable
from edgenas.profilers.trust import judge
from edgenas.units import format_bytes

_SECONDS = 30.0
_START_SECONDS = 180.0  # TensorRT's libraries on a slow card
_LOCK_SECONDS = 2.0
_FREE_BYTES = 100_000_000
_CLOCK_SECONDS = 60.0
_OLDEST_PYTHON = (3, 8)
_THERE = ("python", "work folder", "runtime", "clock", "conditions", "lock")
_KEY_STATES = {"unknown": "is not in", "changed": "is another than that in"}
_PROBE = (
    "import json, os, sys, time; free = os.statvfs('.');"
    " print(json.dumps({'version': sys.version.split()[0], 'path': sys.executable, 'time': time.time(),"
    " 'folder': os.getcwd(), 'free_bytes': free.f_bavail * free.f_frsize}))"
)
_CONDITIONS = (
    "import json, pathlib, sys, agent_board;"
    " print(json.dumps(agent_board.conditions(pathlib.Path('/'), json.loads(sys.argv[1]))))"
)


@dataclass(frozen=True)
class Check:
    """One thing that was tried: whether it works, what was found, and what mends it.

    ``warning`` means that measuring works, and that its numbers may not be trusted.
    """

    name: str
    status: Literal["ok", "warning", "failed", "not tried"]
    found: str
    remedy: str = ""


def passed(checks: list[Check]) -> bool:
    """Whether a device can be measured on."""
    return all(check.status in ("ok", "warning") for check in checks)


def check(target: Target) -> list[Check]:
    """Try everything that measuring on a target needs. What cannot be tried after a failure is said to be so."""
    over_ssh = target.profile.connection.kind == "ssh"
    names = [*(("reach", "host key", "login") if over_ssh else ("connection",)), *_THERE]
    done: list[Check] = []
    try:
        for each in _all(target, over_ssh):
            done.append(each)
    except EdgeNASError as error:
        done.append(_failure(str(error), target, names[len(done) :]))
    tried = {each.name for each in done}
    return [*done, *(Check(name, "not tried", "needs what failed") for name in names if name not in tried)]


def _failure(message: str, target: Target, untried: list[str]) -> Check:
    """The first thing that was not tried yet and that the message names, else the very next one."""
    found = message.removeprefix(f"{target.profile.name}: ").removeprefix(f"{_host(target)}: ")
    what, _, remedy = found.rpartition("; ")
    name = next((name for name in untried if name in found), untried[0])
    return Check(name, "failed", what or remedy, remedy if what else "")


def _host(target: Target) -> str:
    return str(getattr(target.profile.connection, "host", ""))


def _all(target: Target, over_ssh: bool) -> Iterator[Check]:
    if over_ssh:
        yield from _host_key(target)
    with connect(target.profile) as device:
        yield Check("login" if over_ssh else "connection", "ok", _login(target))
        yield from _on_device(device, target)


def _host_key(target: Target) -> Iterator[Check]:
    from edgenas.devices.ssh_config import SshConnection
    from edgenas.devices.ssh_connection import fetch_host_key

    connection = target.profile.connection
    assert isinstance(connection, SshConnection)
    key = fetch_host_key(connection, Deadline(_SECONDS))
    yield Check("reach", "ok", key.host)
    if key.state != "known":
        raise DeviceError(
            f"the {key.type} key {key.fingerprint} of {key.host} {_KEY_STATES[key.state]} {key.file};"
            f" run: edgenas device trust {target.profile.name}"
        )
    yield Check("host key", "ok", f"{key.type} {key.fingerprint}")


def _login(target: Target) -> str:
    connection = target.profile.connection
    user = getattr(connection, "user", None)
    return f"as {user}" if user else connection.kind


def _on_device(device: Device, target: Target) -> Iterator[Check]:
    seen = _ask(device, [device.python, "-c", _PROBE])
    yield _python(seen)
    if tuple(map(int, seen["version"].split(".")[:2])) < _OLDEST_PYTHON:
        return
    yield _folder(seen)
    yield _runtime(device, target)
    yield _clock(seen["time"] - time.time())
    yield from _conditions(device, target)
    with device.lock(Deadline(_LOCK_SECONDS)):
        yield Check("lock", "ok", "free")


def _ask(device: Device, command: list[str]) -> dict[str, Any]:
    """What a small program prints there as JSON; raises EdgeNASError when it does not."""
    done = device.run(command, deadline=Deadline(_SECONDS))
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        said = done.stderr.strip().rpartition("\n")[2] or f"status {done.exit_status}"
        raise EdgeNASError(
            f"{command[0]} cannot be used there ({said}); install it: sudo apt-get install python3, or name another"
            " one as python in the profile"
        ) from None
    return answer


def _python(seen: dict[str, Any]) -> Check:
    found = f"{seen['version']}, {seen['path']}"
    if tuple(map(int, seen["version"].split(".")[:2])) >= _OLDEST_PYTHON:
        return Check("python", "ok", found)
    return Check("python", "failed", found, "install Python 3.8 or newer there and name it as python in the profile")


def _folder(seen: dict[str, Any]) -> Check:
    free = seen["free_bytes"]
    found = f"{seen['folder']}, {format_bytes(free)} free"
    if free >= _FREE_BYTES:
        return Check("work folder", "ok", found)
    return Check("work folder", "failed", found, "free space there, or set work_dir in the profile")


def _runtime(device: Device, target: Target) -> Check:
    """Start the agent without a model: it imports the runtime and looks for the providers."""
    lines: list[str] = []
    request = {**describe(target), "settings": {}, "models": []}
    command = send_agent(device, target.runtime)
    data = json.dumps(request).encode() + b"\n"
    done = device.run(command, deadline=Deadline(_START_SECONDS), stdin=data, on_line=lines.append)
    where = target.profile.name
    try:
        answer = json.loads(lines[0])
    except (IndexError, ValueError):
        said = done.stderr.strip().rpartition("\n")[2] or f"status {done.exit_status}"
        return Check("runtime", "failed", f"the agent ended too early ({said})", f"run: edgenas device setup {where}")
    if answer["kind"] == "unable":
        found, _, remedy = str(unable(answer, where, target, device.python)).removeprefix(f"{where}: ").partition("; ")
        return Check("runtime", "failed", found, remedy)
    version = answer["versions"][target.runtime]
    return Check("runtime", "ok", f"{target.runtime} {version}, {', '.join(target.providers)}")


def _clock(ahead: float) -> Check:
    if abs(ahead) <= _CLOCK_SECONDS:
        return Check("clock", "ok", "as here")
    found = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    return Check("clock", "warning", found, "set it there: sudo timedatectl set-ntp true")


def conditions(device: Device, cpus: Sequence[int] | None = None) -> dict[str, Any]:
    """The conditions on a device now, as the agent gives them with a measurement. Raises EdgeNASError."""
    send_agent(device, "onnxruntime")
    return _ask(device, [device.python, "-c", _CONDITIONS, json.dumps(None if cpus is None else list(cpus))])


def _conditions(device: Device, target: Target) -> Iterator[Check]:
    now = conditions(device, target.affinity)
    verdict = judge(now, {**now, "interrupted_share": 0.0}, power_mode=target.profile.power_mode)
    if verdict.status == "refused":
        for reason in verdict.reasons:
            found, _, remedy = reason.partition(": ")
            yield Check("conditions", "warning", found, remedy)
    else:
        status: Literal["ok", "warning"] = "ok" if verdict.status == "trusted" else "warning"
        yield Check("conditions", status, str(verdict))
