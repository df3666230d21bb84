"""Checking a device, and writing its profile, where it answers what no device of ours does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgenas.devices import Device, Target
from edgenas.devices.facts import complete_facts
from edgenas.devices.fake import FakeDevice, Reply, Request, simulate_agent
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import DeviceError
from edgenas.pipeline import device_check, device_setup
from edgenas.pipeline.device_check import CheckResult, check_device
from edgenas.pipeline.device_setup import create_profile

PROFILE: dict[str, Any] = {
    "name": "board",
    "connection": {"kind": "fake"},
    "runtimes": {"onnxruntime": {}},
    "default": {"runtime": "onnxruntime"},
}
WORK_FOLDER = {"time": 1e9, "folder": "/work", "free_bytes": 10**10, "noexec": False}
Said = dict[str, Any]


class Board(FakeDevice):
    """Runs Python 3.11, and answers the programs of the check with these values or texts."""

    def __init__(self, said: Said) -> None:
        super().__init__(self._reply, name="board")
        self._said = {"folder": WORK_FOLDER, "conditions": {}, "providers": "1.0", "facts": {}, **said}

    def _reply(self, request: Request) -> Reply:
        program = request.command[-1] if request.stdin == b"" else ""
        if not program:
            return simulate_agent(request)
        kinds = {device_check._WORK_FOLDER: "folder", "null": "conditions"}
        said = self._said[kinds.get(program, "providers")]
        return Reply(said if isinstance(said, str) else json.dumps(said))

    def facts(self) -> dict[str, Any]:
        return complete_facts({"python": "3.11.2", **self._said["facts"]}, self.name)


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Callable[[Said], list[CheckResult]]:
    """Check a board that says this."""

    def run(said: Said) -> list[CheckResult]:
        monkeypatch.setattr(device_check, "connect_device", lambda profile: Board(said))
        return check_device(Target(profile_from_dict(PROFILE, "board.yaml")))

    return run


def test_a_board_that_answers_passes(check: Callable[[Said], list[CheckResult]]) -> None:
    """The scripted board is one that can be measured on."""
    assert [each.status for each in check({})] == ["ok", "ok", "ok", "warning", "ok", "ok", "warning"]


@pytest.mark.parametrize(
    ("said", "step", "problem"),
    [
        ({"facts": {"python": "3.x"}}, "python", "python: Predicate 'is_version' failed"),
        ({"facts": {"python": f"3.{'9' * 5000}"}}, "python", "python: Predicate 'is_version' failed"),
        ({"folder": {}}, "work folder", "time: Field required"),
        ({"folder": []}, "work folder", "Input should be an object"),
        ({"folder": "[" * 100_000}, "work folder", "recursion limit exceeded"),
        ({"folder": {**WORK_FOLDER, "time": "now"}}, "work folder", "time: Input should be a valid number"),
        ({"folder": {**WORK_FOLDER, "time": 1e300}}, "work folder", "time: Input should be less than or equal to"),
        ({"folder": {**WORK_FOLDER, "free_bytes": -1}}, "work folder", "free_bytes: Input should be greater than or"),
        ({"folder": {**WORK_FOLDER, "folder": "\x1b[2J"}}, "work folder", "folder: Predicate"),
        ({"conditions": {"governor": 3}}, "conditions", "governor: Input should be a valid string"),
        ({"conditions": {"frequency_khz": 10**400}}, "conditions", "frequency_khz: Input should be less than or"),
        ({"conditions": {"humidity": 3}}, "conditions", "humidity: Extra inputs are not permitted"),
        ({"conditions": "hello"}, "conditions", "Invalid JSON"),
    ],
)
def test_what_no_program_of_ours_prints_fails_its_step(
    check: Callable[[Said], list[CheckResult]], said: Said, step: str, problem: str
) -> None:
    """The step that asked fails with the name of the field, on a printable line."""
    failed = next(each for each in check(said) if each.status == "failed")
    assert (failed.name, "answered nonsense" in failed.found, problem in failed.found) == (step, True, True)
    assert (failed.found + failed.remedy).isprintable()


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"facts": {"cores": 0}}, "cores: Input should be greater than or equal to 1"),
        ({"facts": {"cores": 10**9}}, "cores: Input should be less than or equal to 4096"),
        ({"conditions": {"power_mode": "a b"}}, r"makes no profile \(.*power_mode must be letters"),
        ({"providers": "1.0 " + "\x1b[2J"}, "its providers: answered nonsense .*Predicate"),
        ({"providers": "1.0 " + "x " * 500_000}, "its providers: answered nonsense .*at most 1000 items"),
        (
            {
                "facts": {
                    "cores": 2,
                    "clusters": [
                        {"cores": [7], "cpu": "x", "capacity": 1, "max_frequency_khz": 1},
                        {"cores": [8], "cpu": "y", "capacity": 2, "max_frequency_khz": 2},
                    ],
                }
            },
            r"makes no profile \(.*must be CPU numbers from 0 to 1, but got \[7\]",
        ),
    ],
)
def test_no_profile_is_written_of_nonsense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said, problem: str
) -> None:
    """What a board says of itself must make a profile that can be read."""
    device: Device = Board(said)
    monkeypatch.setattr(device_setup, "connect_device", lambda profile: device)
    with pytest.raises(DeviceError, match=rf"^board: .*{problem}") as error:
        create_profile("board", {"kind": "fake"}, lambda key: False, tmp_path / "board.yaml")
    assert str(error.value).isprintable()
    assert not (tmp_path / "board.yaml").exists()
