"""A device whose answers come from a Python function: for tests and for trying edgenas without a board."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgenas.devices.contract import Deadline, Device, check_digest, checked_file_name
from edgenas.devices.facts import complete_facts
from edgenas.devices.output import STDERR_KEPT_BYTES, CompletedCommand
from edgenas.errors import DeviceError
from edgenas.files import read_bytes, sha256_hex, write_bytes

if TYPE_CHECKING:
    from edgenas.devices.profile import DeviceProfile


@dataclass(frozen=True)
class Request:
    """A command for a fake device, with the contents of all files pushed so far, by name."""

    command: tuple[str, ...]
    stdin: bytes
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Reply:
    """The output and the end of a command on a fake device.

    ``seconds`` is a pretended duration, which a deadline counts and nobody
    waits for. With ``vanishes`` the connection is lost after the output.
    """

    stdout: str = ""
    stderr: str = ""
    exit_status: int = 0
    seconds: float = 0.0
    vanishes: bool = False


Handler = Callable[[Request], Reply]


def simulate_agent(request: Request) -> Reply:
    """Answer a measuring request as the agent would, with a latency that grows with a model's file.

    The latency is 1 µs plus 1 ms a megabyte, with a deterministic spread of
    ±1% from run to run. A process takes a pretended 0.3 s. Asked for operators,
    it names one that takes 1 ms a megabyte.
    """
    measuring = json.loads(request.stdin)
    conditions = {
        "time": 0.0,
        **dict.fromkeys(("governor", "frequency_khz", "temperature_c", "throttle_count", "load_average")),
    }
    answers: list[dict[str, Any]] = [
        {"kind": "hello", "versions": {"agent": "fake", measuring["runtime"]: "fake"}, "facts": {}}
    ]
    for model in measuring["models"]:
        data = request.files[Path(model["path"]).name]
        spread = bytes.fromhex(sha256_hex(data))
        if measuring.get("mode") == "operators":
            operator = {"name": "fake", "type": "Fake", "provider": measuring["providers"][0], "us": len(data) / 1e3}
            operators = [{**operator, "inputs": [], "outputs": []}]
            answers.append({"kind": "result", "id": model["id"], "operators": operators, "has_graph": False})
            continue
        answers.append(
            {
                "kind": "result",
                "id": model["id"],
                "samples_ms": [round((0.001 + len(data) / 1e6) * (0.99 + byte / 12_750), 6) for byte in spread],
                "peak_bytes": 2 * len(data),
                "load_ms": 1.0,
                "device_s": 0.3,
                "conditions_before": conditions,
                "conditions_after": conditions,
            }
        )
    answers.append({"kind": "end", "count": len(measuring["models"])})
    return Reply("".join(json.dumps(answer) + "\n" for answer in answers))


@dataclass
class FakeBoard:
    """The state that several fake devices share as connections to one board: the holder of its lock."""

    holder: str | None = None


class FakeDevice(Device):
    """A device that passes every command to a handler. Its facts and measurements are marked synthetic.

    Args:
        handler: Answers a command. A profile of kind ``fake`` connects to a
            device with ``simulate_agent``.
        name: The device's name in messages.
        board: The board that it shares with other fake devices, by default its own.
    """

    def __init__(
        self, handler: Handler = simulate_agent, *, name: str = "fake", board: FakeBoard | None = None
    ) -> None:
        self._handler = handler
        self.name = name
        self._board = board or FakeBoard()
        self._has_lock = False
        self._files: dict[str, bytes] = {}
        self._closed = False

    @classmethod
    def connect(cls, profile: DeviceProfile) -> Self:
        return cls(name=profile.name)

    @property
    def python(self) -> str:
        return "python3"

    def run(
        self,
        command: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        on_line: Callable[[str], None] | None = None,
    ) -> CompletedCommand:
        self._check_open()
        reply = self._handler(Request(tuple(command), stdin, dict(self._files)))
        if on_line:
            for line in reply.stdout.splitlines():
                on_line(line)
        if reply.vanishes:
            raise DeviceError(f"{self.name}: the connection was lost; check the device and try again")
        if reply.seconds >= deadline.seconds_left:
            deadline.expire_now()
            raise DeviceError(
                f"{command[0]}: did not end within {deadline.seconds:g} s; allow more time or check the device"
            )
        return CompletedCommand(reply.exit_status, "" if on_line else reply.stdout, reply.stderr[-STDERR_KEPT_BYTES:])

    def push(self, local: str | Path, name: str, sha256: str | None = None) -> str:
        self._check_open()
        local = Path(local)
        data = read_bytes(local)
        check_digest(local, data, sha256)
        self._files[checked_file_name(name)] = data
        return f"/fake/{name}"

    def pull(self, remote: str, local: str | Path) -> None:
        self._check_open()
        name = checked_file_name(remote.removeprefix("/fake/"))
        if name not in self._files:
            raise DeviceError(f"{remote}: there is no such file on the device")
        write_bytes(Path(local), self._files[name])

    def facts(self) -> dict[str, Any]:
        self._check_open()
        return complete_facts({"synthetic": True, "model": self.name}, self.name)

    def _take_lock_or_get_holder(self, holder: str) -> str | None:
        self._check_open()
        if self._board.holder is None:
            self._board.holder, self._has_lock = holder, True
            return None
        return self._board.holder

    def _release_lock(self) -> None:
        if self._has_lock:
            self._board.holder, self._has_lock = None, False

    def close(self) -> None:
        self._closed = True
        self._release_lock()
        self._files.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError("the device was closed; connect again")
