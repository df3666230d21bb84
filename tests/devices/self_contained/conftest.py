"""Fixtures of the tests of self-contained runtimes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from edgenas.devices import DeviceProfile
from edgenas.devices.setup import InstalledRuntimes
from edgenas.pipeline.device_setup import profile_yaml, set_up_device
from tests.fixtures.virtual_machines import board_profile
from tests.stand_ins.machine import Machine


@dataclass(frozen=True)
class SetUpBoard:
    """A board after its set-up: its profile as a file and as data, and what set-up said and returned."""

    file: Path
    profile: DeviceProfile
    said: list[str]
    installed: InstalledRuntimes


@pytest.fixture(scope="session")
def installed_board(booted_board: Machine, tmp_path_factory: pytest.TempPathFactory) -> SetUpBoard:
    """The board without Python after one set-up without options. Tests take ``ready_board``."""
    profile = board_profile(booted_board)
    said: list[str] = []
    installed = set_up_device(profile, say=said.append)
    file = tmp_path_factory.mktemp("profiles") / "bare-board.yaml"
    file.write_text(profile_yaml({key: value for key, value in profile.to_dict().items() if value not in (None, {})}))
    return SetUpBoard(file, profile, said, installed)


@pytest.fixture
def ready_board(installed_board: SetUpBoard, bare_board: Machine) -> SetUpBoard:
    """The board without Python, set up; what a test does to it is undone after it."""
    return installed_board
