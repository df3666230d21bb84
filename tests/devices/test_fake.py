"""The fake device: the contract, marked synthetic, and simulated measurements."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgenas.devices import Deadline, Device, connect_device
from edgenas.devices.fake import FakeBoard, FakeDevice, Reply, Request
from edgenas.devices.profile_files import profile_from_dict
from edgenas.devices.testing import COMMANDS, DeviceContract
from edgenas.errors import DeviceError


def scripted(request: Request) -> Reply:
    """Answer the contract's commands as a real machine would."""
    name = next(name for name, code in COMMANDS.items() if code == request.command[-1])
    replies = {
        "lines": Reply("one\ntwo\n", "bad\n", 3),
        "echo": Reply(request.stdin.decode().strip()[::-1] + "\n"),
        "flood": Reply("done\n", "e" * 5_000_000 + "last"),
        "slow": Reply("begun\n", seconds=600),
        "binary": Reply("\N{REPLACEMENT CHARACTER}\nno line feed"),
        "where": Reply(f"{sorted(request.files)}\n"),
        "lifeline": Reply("still open\n"),
    }
    return replies[name]


class TestContract(DeviceContract):
    @pytest.fixture
    def board(self) -> FakeBoard:
        return FakeBoard()

    @pytest.fixture
    def device(self, board: FakeBoard) -> Iterator[Device]:
        with FakeDevice(scripted, board=board) as device:
            yield device

    @pytest.fixture
    def other(self, board: FakeBoard) -> Iterator[Device]:
        with FakeDevice(scripted, board=board) as device:
            yield device


def test_facts_are_marked_synthetic() -> None:
    """Whatever a fake device says is marked as made up."""
    assert FakeDevice().facts()["synthetic"] is True


def test_a_vanishing_device_has_sent_its_output() -> None:
    """Lines that came before the connection was lost are there."""
    lines: list[str] = []
    device = FakeDevice(lambda request: Reply("one\n", vanishes=True))
    with pytest.raises(DeviceError, match="connection was lost"):
        device.run(["x"], deadline=Deadline(1), on_line=lines.append)
    assert lines == ["one"]


def test_simulated_time_grows_with_the_file(tmp_path: Path) -> None:
    """A simulated model of 1 MB takes 1.001 ms, give or take 1%."""
    model = tmp_path / "model"
    model.write_bytes(bytes(1_000_000))
    profile = {
        "name": "pretended",
        "connection": {"kind": "fake"},
        "runtimes": {"onnxruntime": {}},
        "default": {"runtime": "onnxruntime"},
    }
    with connect_device(profile_from_dict(profile, "test")) as device:
        path = device.push(model, "model.onnx")
        request = json.dumps({"models": [{"id": 0, "path": path}], "runtime": "onnxruntime"}).encode()
        lines = device.run(["agent"], deadline=Deadline(1), stdin=request).stdout.splitlines()
    samples = json.loads(lines[1])["samples_ms"]
    assert 0.99 * 1.001 <= min(samples) <= max(samples) <= 1.0101 * 1.001
