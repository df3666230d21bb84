"""A device of answers made up in advance: for tests, and for trying edgenas out without one. Marked synthetic."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgenas.devices.contract import STDERR_KEPT, Completed, Deadline, Device, check_content, check_name
from edgenas.devices.facts import complete
from edgenas.errors import DeviceError, UsageError
from edgenas.files import digest, read_bytes, write_bytes

if TYPE_CHECKING:
    from edgenas.devices.profile import DeviceProfile


@dataclass(frozen=True)
class Request:
    """A command that the fake device was given; ``files`` are the contents pushed so far, by name."""

    command: tuple[str, ...]
    stdin: bytes
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Reply:
    """What the command does: what it prints, how it ends, how many pretended seconds it takes.

    With ``vanishes`` the device is lost after the output was sent.
    """

    stdout: str = ""
    stderr: str = ""
    exit_status: int = 0
    seconds: float = 0.0
    vanishes: bool = False


Handler = Callable[[Request], Reply]


def simulate(request: Request) -> Reply:
    """Answer a measuring request as the agent would: the time of a model grows with the size of its file.

    1 µs and 1 ms a megabyte, with a deterministic spread of ±1% from run to run; a
    process is said to take 0.3 s.
    """
    asked = json.loads(request.stdin)
    zero = {
        "time": 0.0,
        **dict.fromkeys(("governor", "frequency_khz", "temperature_c", "throttle_count", "load_average")),
    }
    answers: list[dict[str, Any]] = [
        {"kind": "hello", "versions": {"agent": "fake", asked["runtime"]: "fake"}, "facts": {}}
    ]
    for model in asked["models"]:
        data = request.files[Path(model["path"]).name]
        spread = bytes.fromhex(digest(data))
        answers.append(
            {
                "kind": "result",
                "id": model["id"],
                "samples_ms": [round((0.001 + len(data) / 1e6) * (0.99 + byte / 12_750), 6) for byte in spread],
                "peak_bytes": 2 * len(data),
                "load_ms": 1.0,
                "device_s": 0.3,
                "conditions_before": zero,
                "conditions_after": zero,
            }
        )
    answers.append({"kind": "end", "count": len(asked["models"])})
    return Reply("".join(json.dumps(answer) + "\n" for answer in answers))


@dataclass
class FakeBoard:
    """What several fake devices share when they stand for connections to one board: its lock."""

    holder: str | None = None


class FakeDevice(Device):
    """Gives every command to a handler instead of a machine. Its facts say ``synthetic``, so measurements do too.

    A device profile of kind ``fake`` gives one that answers with ``simulate``,
    on a board of its own.
    """

    def __init__(self, handler: Handler = simulate, *, name: str = "fake", board: FakeBoard | None = None) -> None:
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
    ) -> Completed:
        self._check_open()
        reply = self._handler(Request(tuple(command), stdin, dict(self._files)))
        if on_line:
            for line in reply.stdout.splitlines():
                on_line(line)
        if reply.vanishes:
            raise DeviceError(f"{self.name}: the connection was lost; check the device and try again")
        if reply.seconds >= deadline.left:
            deadline.cancel()
            raise DeviceError(
                f"{command[0]}: did not end within {deadline.seconds:g} s; allow more time or check the device"
            )
        return Completed(reply.exit_status, "" if on_line else reply.stdout, reply.stderr[-STDERR_KEPT:])

    def push(self, local: Path, name: str, sha256: str | None = None) -> str:
        self._check_open()
        if not local.is_file():
            raise UsageError(f"{local}: cannot be read (no such file)")
        data = read_bytes(local)
        check_content(local, data, sha256)
        self._files[check_name(name)] = data
        return f"/fake/{name}"

    def pull(self, remote: str, local: Path) -> None:
        self._check_open()
        name = check_name(remote.removeprefix("/fake/"))
        if name not in self._files:
            raise DeviceError(f"{remote}: there is no such file on the device")
        write_bytes(local, self._files[name])

    def facts(self) -> dict[str, Any]:
        self._check_open()
        return complete({"synthetic": True, "model": self.name})

    def _take_lock(self, holder: str) -> str | None:
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
