"""Feeds the readers of what devices say with changed and random answers, within limits of memory and time.

``python -m tests.devices.fuzz_answers SEED CASES``. Each case is an answer of an SSH server, the remote worker, the
login shell, the agent, the install script or a program of the check, or a file of outputs. The process fails at the
first case that ends in anything but a result or an EdgeNASError, that takes too long, or whose words are not printable.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import random
import resource
import signal
import socket
import struct
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, repeat
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgenas.devices import Deadline, Target, connect_device
from edgenas.devices.facts import complete_facts
from edgenas.devices.fake import FakeDevice, Reply, Request, simulate_agent
from edgenas.devices.profile_files import profile_from_dict
from edgenas.devices.setup import install_runtimes
from edgenas.errors import MAX_LINE_LENGTH, EdgeNASError
from edgenas.files import sha256_hex
from edgenas.on_device.worker import MARK
from edgenas.pipeline.device_check import check_device
from edgenas.profilers import MeasureSettings, MeasuringSession, ModelInputs
from edgenas.profilers.measure.outputs import read_outputs
from tests.fixtures.scripted_ssh import PROFILE, answer, frame, scripted_device

MEMORY = 512 << 20
SECONDS = 30
Rng = random.Random

WORDS = ["", "x", "\x1b[2J", "\u202e", "\0", "\n", "3.11", "-1", "NaN", "9" * 5000, "x" * 100_000, "\ud800", "/"]
INTEGERS = [0, -1, 1, 2**63, 10**400]
VALUES: list[Any] = [None, True, False, *INTEGERS, 1e308, -0.0, math.nan, math.inf, [], {}, [[]], [0] * 50_000]
BYTES = [b"\xff", b"\x1b]0;x\x07", b"\0" * 9, b"[" * 100_000, b'{"a":' * 50_000, b" " * (2 << 20), b"\r\n", b"\xed\xa0"]
PROBE = {
    "python": "3.11.2", "implementation": "CPython", "machine": "aarch64", "bits": 64, "libc": ["glibc", "2.36"],
    "free_bytes": 10**10, "noexec": False, "base": "/home/pi/.cache/edgenas", "works": False,
    "note": {"versions": {"onnxruntime": "1.0"}, "providers": {}, "skipped": {}, "asked": [["a"]]},
}  # fmt: skip
INSTALLED = {
    "versions": {"onnxruntime": "1.0"}, "providers": {"onnxruntime": ["X"]}, "skipped": {"a": "b"}, "asked": [],
}  # fmt: skip
WORK_FOLDER = {"time": 1e9, "folder": "/work", "free_bytes": 10**10, "noexec": False}
CONDITIONS = {"governor": "performance", "frequency_khz": 10**6, "temperature_c": 40.5, "power_mode": None}
CPUINFO = "".join(f"processor\t: {number}\nCPU implementer\t: 0x41\nCPU part\t: 0xd0{number}\n" for number in range(4))
FILES = {
    "/proc/cpuinfo": CPUINFO,
    "/proc/meminfo": "MemTotal:        2048 kB\n",
    "/proc/device-tree/model": "Some board\0",
    "/etc/os-release": 'PRETTY_NAME="Some system"\n',
    "/sys/devices/system/cpu/cpu0/cpu_capacity": "1024\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "2400000\n",
    "system": "6.1\naarch64\n3.11.2\n",
    "end": "",
}


# -- changing answers ----------------------------------------------------------------


def change_value(value: Any, rng: Rng) -> Any:
    """Return JSON data with one part, at any depth, changed, removed or added."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        others = {name: part for name, part in value.items() if name != key}
        if rng.random() < 0.15:
            return others
        if rng.random() < 0.1:
            return {**value, rng.choice(WORDS): rng.choice(VALUES)}
        return {**others, key: change_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.6:
        place = rng.randrange(len(value))
        return [*value[:place], change_value(value[place], rng), *value[place + 1 :]]
    return rng.choice(WORDS) if rng.random() < 0.5 else rng.choice(VALUES)


def change_bytes(data: bytes, rng: Rng) -> bytes:
    """Return bytes of which some are flipped, cut, doubled, put in or random."""
    place, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    way = rng.randrange(7)
    if way == 0:
        return bytes(byte ^ (rng.randrange(256) if rng.random() < 0.02 else 0) for byte in data)
    random_bytes = rng.randbytes(rng.randrange(64))
    cut, left_out, doubled = data[:place], data[:place] + data[end:], data[:end] + data[place:]
    put_in, replaced = data[:place] + rng.choice(BYTES) + data[place:], data[:place] + random_bytes + data[end:]
    return [cut, left_out, doubled, put_in, replaced, rng.randbytes(rng.randrange(4096))][way - 1]


def change_text(text: str, rng: Rng) -> str:
    """Return text as a device's bytes would be read, after they were changed."""
    return change_bytes(text.encode(errors="surrogatepass"), rng).decode(errors="replace")


def change_json(value: Any, rng: Rng) -> str:
    """Return the text of changed JSON data."""
    return json.dumps(change_value(value, rng)) if rng.random() < 0.7 else change_text(json.dumps(value), rng)


# -- the readers ---------------------------------------------------------------------


def use_worker(rng: Rng, folder: Path) -> Any:
    """Run a command, send or fetch a file, or take the lock of a device whose worker answers wrongly."""
    content = rng.randbytes(100)
    hello: Mapping[str, Any] = {"folder": "/work"}
    what, answers, frames = rng.choice(
        [
            ("run", [hello, {}], [frame(b"O", b"one\ntwo\n"), frame(b"E", b"\x1b[31mbad"), frame(b"X", b"0")]),
            ("push", [hello, {"path": None}, {"path": "/work/name"}], []),
            ("pull", [hello, {"sha256": sha256_hex(content), "size": 100}], [frame(b"F", content)]),
            ("lock", [hello, {"held_by": None}, {}], []),
        ]
    )
    spoiled = rng.randrange(len(answers))
    said = [
        frame(b"R" if rng.random() < 0.1 else b"J", change_json(each, rng).encode(errors="surrogatepass"))
        if number == spoiled
        else answer(**each)
        for number, each in enumerate(answers)
    ]
    stream = b"".join([*said, *frames])
    if rng.random() < 0.4:
        stream = change_bytes(b"".join([*(answer(**each) for each in answers), *frames]), rng)
    without_end = chain([MARK + stream], repeat(rng.randbytes(50_000)))
    with scripted_device([MARK + stream] if rng.random() < 0.95 else without_end) as device:
        if what == "run":
            return device.run(["true"], deadline=Deadline(5), on_line=rng.choice([None, lambda line: None])).failure
        if what == "push":
            (folder / "local").write_bytes(content)
            return device.push(folder / "local", "name")
        if what == "pull":
            return device.pull("name", folder / "back")
        with device.lock(Deadline(0)):
            return None


def shake_hands(rng: Rng, folder: Path) -> Any:
    """Connect to a server that sends no SSH, or packets of it with errors."""
    algorithms = [b"curve25519-sha256", b"ssh-ed25519", *[b"aes128-ctr"] * 2, *[b"hmac-sha2-256"] * 2, *[b"none"] * 2]
    names = b"".join(struct.pack(">I", len(name)) + name for name in [*algorithms, b"", b""])
    offer, reply = b"\x14" + rng.randbytes(16) + names + bytes(5), b"\x1f" + rng.randbytes(200)
    packets = [offer, change_bytes(offer, rng)[:30_000], reply, rng.randbytes(50)]
    stream = b"SSH-2.0-x\r\n" + b"".join(pack(body) for body in packets[rng.randrange(2) :])
    if rng.random() < 0.3:
        stream = change_bytes(stream, rng)
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=send_and_hang_up, args=(server, stream))
        thread.start()
        connection = {"kind": "ssh", "host": "127.0.0.1", "port": server.getsockname()[1], "config_file": "none"}
        try:
            connect_device(profile_from_dict({**PROFILE, "connection": connection}, "board.yaml"))
        finally:
            thread.join()


def pack(body: bytes) -> bytes:
    """Return a packet of SSH before the exchange of keys."""
    padding = 16 - (len(body) + 5) % 8
    return struct.pack(">IB", len(body) + padding + 1, padding) + body + bytes(padding)


def send_and_hang_up(server: socket.socket, stream: bytes) -> None:
    """Answer one connection with these bytes."""
    with contextlib.suppress(OSError), server.accept()[0] as client:
        client.sendall(stream)
        client.shutdown(socket.SHUT_WR)
        while client.recv(4096):
            pass


def read_facts(rng: Rng, folder: Path) -> Any:
    """Read the facts that a login shell prints."""
    files = dict(FILES)
    spoiled = rng.choice(list(files))
    files[spoiled] = rng.choice(WORDS) if rng.random() < 0.3 else change_text(files[spoiled], rng)
    printed = "".join(f"== edgenas == {path}\n{text}\n" for path, text in files.items()).encode(errors="surrogatepass")
    if rng.random() < 0.2:
        printed = change_bytes(printed, rng)
    chunks = [printed] if rng.random() < 0.95 else repeat(printed + rng.randbytes(50_000))
    with scripted_device(chunks) as device:
        return device.facts()


class Board(FakeDevice):
    """Answers as a good device does, but for one answer."""

    def __init__(self, rng: Rng) -> None:
        super().__init__(self._reply, name="board")
        self._rng, self._spoiled = rng, rng.choice(["facts", "folder", "conditions", "agent", "probe", "install"])

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"python": "3.11.2", "cores": 4, "model": "Some board", "clusters": None}
        if self._spoiled == "facts":
            spoiled = self._rng.choice(list(facts))
            facts[spoiled] = change_value(facts[spoiled], self._rng)
        return complete_facts(facts, self.name)

    def _reply(self, request: Request) -> Reply:
        if request.stdin and "models" in json.loads(request.stdin):
            return self._reply_as_agent(request)
        if request.stdin:
            action = json.loads(request.stdin)["action"]
            return self._say(action, PROBE if action == "probe" else INSTALLED)
        asks_for_conditions = request.command[-1] == "null"
        return self._say("conditions", CONDITIONS) if asks_for_conditions else self._say("folder", WORK_FOLDER)

    def _say(self, name: str, value: Any) -> Reply:
        status = self._rng.choice([0, 0, 0, 0, 3, 1])
        return Reply(change_json(value, self._rng) if name == self._spoiled else json.dumps(value), "\x1b[2J", status)

    def _reply_as_agent(self, request: Request) -> Reply:
        lines = simulate_agent(request).stdout.splitlines()
        if self._spoiled == "agent":
            place = self._rng.randrange(len(lines))
            lines[place] = change_json(json.loads(lines[place]), self._rng)
        return Reply("\n".join(lines) + "\n", "\x1b[2J last words")


def measure(rng: Rng, folder: Path) -> Any:
    """Measure a model on a device whose agent answers wrongly."""
    board = Board(rng)
    board._spoiled = rng.choice(["agent", "agent", "facts"])
    with MeasuringSession(Target(profile_from_dict(PROFILE, "board.yaml")), board) as session:
        return list(session.iter_measurements([folder / "model.onnx"] * 2))


def list_operators(rng: Rng, folder: Path) -> Any:
    """List the operators of a model on a device whose agent answers wrongly."""
    board = Board(rng)
    board._spoiled = "agent"
    with MeasuringSession(Target(profile_from_dict(PROFILE, "board.yaml")), board) as session:
        return session.list_operators([folder / "model.onnx"] * 2, MeasureSettings(), ModelInputs())


def check(rng: Rng, folder: Path) -> Any:
    """Check a device whose programs answer wrongly."""
    board = Board(rng)
    with patch("edgenas.pipeline.device_check.connect_device", lambda profile: board):
        return check_device(Target(profile_from_dict(PROFILE | {"connection": {"kind": "fake"}}, "board.yaml")))


def set_up(rng: Rng, folder: Path) -> Any:
    """Install runtimes on a device whose install script answers wrongly."""
    board, said = Board(rng), list[str]()
    board._spoiled = rng.choice(["probe", "install"])
    try:
        return install_runtimes(board, profile_from_dict(PROFILE, "board.yaml"), Deadline(20), say=said.append)
    finally:
        check_printable(said)


def read_file(rng: Rng, folder: Path) -> Any:
    """Read a changed file of outputs."""
    count = rng.randrange(4)
    np.savez(folder / "good.npz", *(np.arange(rng.randrange(9), dtype=np.float32) for _ in range(count)))
    (folder / "outputs.npz").write_bytes(change_bytes((folder / "good.npz").read_bytes(), rng))
    return [array.shape for array in read_outputs(folder / "outputs.npz", count, "board")]


READERS: list[Callable[[Rng, Path], Any]] = [
    shake_hands, use_worker, read_facts, measure, list_operators, check, set_up, read_file,
]  # fmt: skip


# -- the limits ----------------------------------------------------------------------


def check_printable(found: Any) -> None:
    """Fail for text that holds control characters or is too long, at any depth of a result."""
    if isinstance(found, str):
        assert found.isprintable(), ascii(found[:200])
        assert len(found) <= MAX_LINE_LENGTH
    elif isinstance(found, EdgeNASError):
        check_printable(str(found))
    elif dataclasses.is_dataclass(found) and not isinstance(found, type):
        check_printable(dataclasses.asdict(found))
    elif isinstance(found, Mapping):
        check_printable([*found, *found.values()])
    elif isinstance(found, list | tuple):
        for each in found:
            check_printable(each)


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Let the process have this much memory more than now."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def end_case(number: int, stack: FrameType | None) -> None:
    raise TimeoutError(f"took more than {SECONDS} s")


def write_model(path: Path) -> None:
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("in", "out")]
    graph = helper.make_graph([helper.make_node("Relu", ["in"], ["out"])], "relu", shapes[:1], shapes[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def refuse(*of: object) -> list[Path]:
    raise EdgeNASError("nothing is fetched here")


def main(seed: int, cases: int) -> int:
    """Try the cases of a seed; return the exit status."""
    signal.signal(signal.SIGALRM, end_case)
    with (
        tempfile.TemporaryDirectory() as name,
        patch("edgenas.devices.worker_device._KILL_SECONDS", 0.1),
        patch("edgenas.devices.setup.download_wheels", refuse),
    ):
        write_model(Path(name, "model.onnx"))
        for number in range(-len(READERS), cases):
            reader = READERS[number % len(READERS)]
            # The first of each imports what it needs.
            with contextlib.nullcontext() if number < 0 else limited_memory():
                signal.alarm(SECONDS)
                try:
                    check_printable(reader(Rng(f"{seed} {number}"), Path(name)))
                except EdgeNASError as error:
                    check_printable(str(error))
                except BaseException:
                    traceback.print_exc()
                    print(f"case {number} of seed {seed}: {reader.__name__}", file=sys.stderr)
                    return 1
                finally:
                    signal.alarm(0)
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
