"""What all tests share."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: a loaded machine is slow, not wrong. Derandomized: a run says the same every time.
settings.register_profile("edgenas", deadline=None, derandomize=True)
settings.load_profile("edgenas")


Drive = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of published data; a test that wants it is skipped where it is not named."""
    folder = os.environ.get("EDGENAS_DATA")
    if not folder:
        pytest.skip("EDGENAS_DATA does not name the folder of published data")
    return Path(folder)


@pytest.fixture(scope="session")
def drive() -> Drive:
    """Do all steps of a small real run in a folder, in a process of its own; ``kill`` says where it dies."""
    script = Path(__file__).with_name("small_run.py")

    def run(folder: Path, kill: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", str(script), str(folder), *([kill] if kill else [])]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, drive: Drive) -> Path:
    """The folder of a small real run whose every step was done without interruption. Do not write to it."""
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    done = drive(folder)
    assert done.returncode == 0, done.stderr
    return folder
