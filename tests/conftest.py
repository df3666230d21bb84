"""What all tests share."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from edgenas.devices import DeviceProfile
from edgenas.devices.ssh.testing import Sshd, find_sshd

# No deadline: a loaded machine is slow, not wrong. Derandomized: a run says the same every time.
settings.register_profile("edgenas", deadline=None, derandomize=True)
settings.load_profile("edgenas")


# Fixtures that the tests of several packages use.
pytest_plugins = (
    "tests.fixtures.adb_machine",
    "tests.fixtures.exported_models",
    "tests.fixtures.file_server",
    "tests.fixtures.models_on_device",
    "tests.fixtures.mounted_disk",
    "tests.fixtures.released_weights",
    "tests.fixtures.virtual_machines",
)

Drive = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Downloads go into a folder of the session, not among the user's files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def activated() -> Iterator[None]:
    """The commands of this environment are on the PATH, as in the shell of somebody who has activated it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        yield


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of published data; a test that wants it is skipped where it is not named."""
    folder = os.environ.get("EDGENAS_DATA")
    if not folder:
        pytest.skip("EDGENAS_DATA does not name the folder of published data")
    return Path(folder)


@pytest.fixture(scope="session")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A real SSH server on this machine's loopback, for the whole session. Tests take ``sshd``."""
    if find_sshd() is None:
        if os.environ.get("EDGENAS_REQUIRE_DEVICES") == "1":
            pytest.fail("no sshd is installed here, and EDGENAS_REQUIRE_DEVICES=1 asks for it; install openssh-server")
        pytest.skip("no sshd is installed here; install openssh-server")
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def sshd(loopback: Sshd) -> Iterator[Sshd]:
    """The SSH server on loopback; what a test has frozen goes on after it, and its sessions end."""
    yield loopback
    loopback.thaw()
    loopback.kill_sessions()


@pytest.fixture
def ssh_profile(sshd: Sshd, tmp_path: Path) -> DeviceProfile:
    """The profile of the SSH server on loopback, with this interpreter and a new work_dir."""
    return sshd.profile(work_dir=str(tmp_path / "board"))


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


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one tiny subnet, trained until it knows the digits: nine of ten. Do not write to it."""
    import edgenas as en
    from edgenas.pipeline.progress import Silent
    from edgenas.space import Stage

    space = en.MobileNetV3(
        width=0.25,
        resolutions=(16,),
        classes=10,
        kernel_sizes=(3,),
        expand_ratios=(3,),
        depths=(1,),
        stem_stride=1,
        stages=(Stage(32, 2, "relu", False), Stage(64, 2, "hswish", True)),
        head=(96, 128),
    )
    phase = {"name": "full", "epochs": 15, "learning_rate": 0.1, "distill": False}
    run = en.Run(tmp_path_factory.mktemp("runs") / "trained", space, progress=Silent())
    run.train(schedule={"name": "tiny", "batch_size": 32, "phases": [phase]})
    return run.folder.root
