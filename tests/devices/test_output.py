"""The output of a command: its bound, and lines of any number."""

from __future__ import annotations

import pytest

from edgenas.devices.answers import MAX_OUTPUT_BYTES
from edgenas.devices.output import CommandOutput, CompletedCommand
from edgenas.errors import DeviceError


@pytest.mark.parametrize("lines", [None, []])
def test_output_without_an_end_is_a_device_error(lines: list[str] | None) -> None:
    """A line, or the whole where no lines are asked for, of more than 16 MiB is not kept."""
    output = CommandOutput(None if lines is None else lines.append)
    output.add_stdout(b"e" * MAX_OUTPUT_BYTES)
    with pytest.raises(DeviceError, match="printed more than 16 MiB"):
        output.add_stdout(b"e")


def test_many_lines_are_no_endless_one() -> None:
    """Lines that end may be more than that together."""
    lines: list[str] = []
    output = CommandOutput(lines.append)
    for _ in range(3):
        output.add_stdout(b"e" * (MAX_OUTPUT_BYTES // 2) + b"\n")
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("status", "stderr", "failure"),
    [
        (1, "first\nlast\n", "last"),
        (1, "", "status 1"),
        (-11, "last\n", "killed by SIGSEGV"),
        (-9, "last\n", "killed by SIGKILL, most likely by the kernel for want of memory"),
        (-255, "", "killed by signal 255"),
    ],
)
def test_a_failure_is_the_signal_or_the_last_words(status: int, stderr: str, failure: str) -> None:
    """A signal says more than what was printed before it; SIGKILL is what the kernel sends where memory runs out."""
    assert CompletedCommand(status, "", stderr).failure == failure
