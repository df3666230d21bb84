"""What all kinds of device do with what a command says."""

from __future__ import annotations

import pytest

from edgenas.devices.contract import MOST_OUTPUT, Output
from edgenas.errors import DeviceError


@pytest.mark.parametrize("lines", [None, []])
def test_output_without_an_end_is_a_device_error(lines: list[str] | None) -> None:
    """A line, or the whole where no lines are asked for, of more than 16 MiB is not kept."""
    output = Output(None if lines is None else lines.append)
    output.take(b"e" * MOST_OUTPUT)
    with pytest.raises(DeviceError, match="says more than 16 MiB"):
        output.take(b"e")


def test_many_lines_are_no_endless_one() -> None:
    """Lines that end may be more than that together."""
    lines: list[str] = []
    output = Output(lines.append)
    for _ in range(3):
        output.take(b"e" * (MOST_OUTPUT // 2) + b"\n")
    assert len(lines) == 3
