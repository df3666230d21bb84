"""Answers that the remote worker never gives: its other end is a script. The connection is given up."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from edgenas.devices import Deadline
from edgenas.devices.answers import MAX_ANSWER_BYTES, MAX_FILE_BYTES
from edgenas.devices.facts import FACTS
from edgenas.devices.ssh.device import SshDevice
from edgenas.errors import DeviceError
from edgenas.files import sha256_hex
from edgenas.on_device.worker import HEADER, MARK
from tests.fixtures.scripted_ssh import HELLO, answer, frame, scripted_device

Use = Callable[[SshDevice, Path], None]


def run(device: SshDevice, folder: Path) -> None:
    device.run(["true"], deadline=Deadline(20))


def push(device: SshDevice, folder: Path) -> None:
    (folder / "local").write_bytes(b"content")
    device.push(folder / "local", "name")


def pull(device: SshDevice, folder: Path) -> None:
    device.pull("name", folder / "back")


def lock(device: SshDevice, folder: Path) -> None:
    with device.lock(Deadline(0)):
        pass


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long for the end of a command that never ends."""
    monkeypatch.setattr("edgenas.devices.worker_device._KILL_SECONDS", 0.2)


STARTED, WANTED = answer(), answer(path=None)
HOSTILE: dict[str, tuple[Use, Iterable[bytes], str]] = {
    "another kind of frame at the start": (run, [MARK + frame(b"O", b"x")], r"answered b'O' out of turn"),
    "no folder": (run, [MARK + answer()], "folder: Field required"),
    "a folder that is a number": (run, [MARK + answer(folder=3)], "folder: Input should be a valid string"),
    "a folder of control characters": (run, [MARK + answer(folder="/\x1b[2J")], "folder: Predicate"),
    "a refusal without a reason": (run, [MARK + frame(b"R", b"{}")], "error: Field required"),
    "a refusal with a coloured reason": (
        run,
        [MARK + frame(b"R", b'{"error": "\\u001b[31mno", "path": "/x\\n"}')],
        r"no work folder can be made in /x there \(\[31mno\)",
    ),
    "no mark": (run, itertools.repeat(b"x" * 60_000), "printed more than 2 MiB where a short answer was due"),
    "a frame of 4 GiB": (run, [HELLO + HEADER.pack(b"J", 2**32 - 1)], "announced 4294967295 bytes"),
    "a list for a started command": (run, [HELLO + frame(b"J", b"[]")], r"answered nonsense \('\[\]': "),
    "a status of words": (run, [HELLO + STARTED + frame(b"X", b'"x"')], "Input should be a valid integer"),
    "a status that is no JSON": (run, [HELLO + STARTED + frame(b"X", b"x")], "Invalid JSON"),
    "a status out of range": (
        run,
        [HELLO + STARTED + frame(b"X", b"256")],
        "should be less than or equal to 255",
    ),
    "a file where output is due": (run, [HELLO + STARTED + frame(b"F", b"x")], "answered b'F' out of turn"),
    "a kind of frame that there is not": (run, [HELLO + STARTED + frame(b"\x1b")], r"answered b'\\x1b' out of turn"),
    "output without an end": (
        run,
        itertools.chain([HELLO + STARTED], itertools.repeat(frame(b"O", b"x" * 60_000))),
        "printed more than 16 MiB without an end",
    ),
    "no path of a pushed file": (push, [HELLO + answer()], "path: Field required"),
    "a path that is a list": (push, [HELLO + WANTED + answer(path=["/x"])], "path: Input should be a valid string"),
    "a file that is wanted again": (push, [HELLO + WANTED + WANTED], "it was sent and is wanted again"),
    "a file without a size": (pull, [HELLO + answer(sha256="0" * 64)], "size: Field required"),
    "a file below zero": (pull, [HELLO + answer(sha256="", size=-1)], "size: Input should be greater than or equal"),
    "a file of 1 TiB": (
        pull,
        [HELLO + answer(sha256="", size=2**40)],
        f"size: Input should be less than or equal to {MAX_FILE_BYTES}",
    ),
    "a file of another content": (pull, [HELLO + answer(sha256="x", size=1) + frame(b"F", b"x")], "changed while"),
    "more than the size": (pull, [HELLO + answer(sha256="", size=1) + frame(b"F", b"xy")], "b'F' out of turn"),
    "output in a file's place": (pull, [HELLO + answer(sha256="", size=1) + frame(b"O", b"x")], "b'O' out of turn"),
    "no holder": (lock, [HELLO + answer()], "held_by: Field required"),
    "a holder that is a number": (lock, [HELLO + answer(held_by=1)], "held_by: Input should be a valid string"),
    "a holder of control characters": (
        lock,
        [HELLO + answer(held_by="\x1b]0;me\x07\nroot")],
        r"is taken by \]0;me root; wait",
    ),
}


@pytest.mark.parametrize(("use", "chunks", "problem"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_the_worker_never_says_is_a_device_error(
    tmp_path: Path, use: Use, chunks: Iterable[bytes], problem: str
) -> None:
    """Frames, sizes and answers that are not due are refused at once, on one printable line."""
    started = time.monotonic()
    with scripted_device(chunks) as device, pytest.raises(DeviceError, match=problem) as error:
        use(device, tmp_path)
    assert str(error.value).isprintable()
    assert time.monotonic() - started < 15
    assert not (tmp_path / "back").exists()


def test_a_worker_that_answers_nonsense_is_not_asked_again(tmp_path: Path) -> None:
    """After nonsense nobody knows what the next frame belongs to: later calls say why the connection was closed."""
    with scripted_device([HELLO + answer(held_by=1) + STARTED + frame(b"X", b"0")]) as device:
        for use in (lock, run):
            with pytest.raises(DeviceError, match="held_by: Input should be a valid string"):
                use(device, tmp_path)


def test_a_frame_of_the_most_bytes_is_read(tmp_path: Path) -> None:
    """The limit itself is allowed."""
    content = bytes(MAX_ANSWER_BYTES)
    announced = answer(sha256=sha256_hex(content), size=len(content))
    with scripted_device([HELLO + announced + frame(b"F", content)]) as device:
        device.pull("name", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_an_interpreter_of_control_characters_is_refused() -> None:
    """The path that the login shell prints is checked before it is used."""
    device = scripted_device([b"== edgenas == /bin/\x1b[2Jpython\n"])
    device._python = None
    with (
        device,
        pytest.raises(DeviceError, match=r"board: looking for python: .*isprintable") as error,
    ):
        _ = device.python
    assert str(error.value).isprintable()


MARKED = "== edgenas == {}\n{}\n"


@pytest.mark.parametrize(
    ("printed", "problem"),
    [
        (MARKED.format("system", "6.1\naarch64\n4"), "python: Predicate 'is_version' failed"),
        (MARKED.format("system", "\xff"), "kernel: Predicate 'is_word' failed"),
        (MARKED.format("system", "6\x1b[2J"), "kernel: Predicate 'is_word' failed"),
        ("== edgenas == x\n" * 200_000, "printed more than 2 MiB where a short answer was due"),
        ("no mark at all\x1b[2J", r"its login shell runs no commands \(no mark at all \[2J\)"),
    ],
)
def test_hostile_facts_are_a_device_error(printed: str, problem: str) -> None:
    """What the login shell prints is bounded, and each fact is checked."""
    with (
        scripted_device([printed.encode()]) as device,
        pytest.raises(DeviceError, match=rf"^board: .*{problem}") as error,
    ):
        device.facts()
    assert str(error.value).isprintable()


def test_a_device_that_says_nothing_has_no_facts() -> None:
    """What is not said is unknown, which is no error."""
    with scripted_device([b"== edgenas == end\n"]) as device:
        facts = device.facts()
    assert facts["missing"] == list(FACTS)
