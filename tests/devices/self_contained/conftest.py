"""Fixtures of the tests of self-contained runtimes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from edgenas.devices import DeviceProfile
from edgenas.devices.setup import InstalledRuntimes
from edgenas.pipeline.device_setup import create_profile, profile_yaml, set_up_device
from tests.fixtures.virtual_machines import board_profile
from tests.stand_ins.machine import Machine


@dataclass(frozen=True)
class SetUpBoard:
    """A board after its set-up.

    Its profile as ``edgenas device new`` wrote it before, and as it is used, as a file and as data; what set-up said
    and returned.
    """

    written: Path
    file: Path
    profile: DeviceProfile
    said: list[str]
    installed: InstalledRuntimes


@pytest.fixture(scope="session")
def installed_board(booted_board: Machine, tmp_path_factory: pytest.TempPathFactory) -> SetUpBoard:
    """The board without Python after one set-up without options. Tests take ``ready_board``."""
    profile, folder = board_profile(booted_board), tmp_path_factory.mktemp("profiles")
    written, file = folder / "written.yaml", folder / "bare-board.yaml"
    create_profile("bare-board", asdict(profile.connection), lambda key: False, written)
    said: list[str] = []
    installed = set_up_device(profile, say=said.append)
    file.write_text(profile_yaml({key: value for key, value in profile.to_dict().items() if value not in (None, {})}))
    return SetUpBoard(written, file, profile, said, installed)


@pytest.fixture
def ready_board(installed_board: SetUpBoard, bare_board: Machine) -> SetUpBoard:
    """The board without Python, set up; what a test does to it is undone after it."""
    return installed_board
