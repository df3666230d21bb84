"""Commands that wait for a device which another process has locked."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

HOLDER = """
import time
from edgenas.devices import Deadline, connect_device, load_profile
with connect_device(load_profile("localhost")) as device, device.lock(Deadline(600)):
    print("locked", flush=True)
    time.sleep(600)
"""
Start = Callable[[Sequence[str]], "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start Python with these arguments; what still runs is killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def python(arguments: Sequence[str]) -> subprocess.Popen[str]:
        command = [sys.executable, *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield python
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("command", ["device check localhost", "measure {model}"], ids=["check", "measure"])
def test_a_command_that_waits_says_for_whom(start: Start, conv: Path, command: str) -> None:
    """While another process has the machine, a command names it on standard error and goes on waiting."""
    holder = start(["-c", HOLDER])
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    waiting = start(["-m", "edgenas", *(word.format(model=conv) for word in command.split())])
    assert waiting.stderr is not None
    line = waiting.stderr.readline()
    named = (
        rf"localhost: is taken by .+, process {holder.pid}, since 20.+; waiting \d+ s at most until that has ended\n"
    )
    assert re.fullmatch(named, line)
    assert waiting.poll() is None
