"""A run that is killed, anywhere and often, ends as if it had never been."""

import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgenas.pipeline.measurement_log import MeasurementLog

Drive = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow

KILLS = (
    "replace:1",
    "replace:2",
    "train:2",
    "train:40",
    "replace:3",
    "train:70",
    "evaluate:1",
    "evaluate:6",
    "replace:4",
    "profile:1",
    "replace:2",
    "search:1",
    "search:2",
    "replace:1",
    "choose:1",
)


LOG = "targets/*/measurements.jsonl"


def recorded_lines(folder: Path) -> list[bytes]:
    """What the only log of a run holds, line by line."""
    (log,) = folder.glob(LOG)
    return [entry.content for entry in MeasurementLog(log).entries]


def contents(folder: Path, pattern: str = "**/*") -> dict[str, bytes]:
    files = (path for path in folder.glob(pattern) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def broken(finished: Path, tmp_path_factory: pytest.TempPathFactory, drive: Drive) -> Path:
    """A run of the same recorded measurements that was killed at every point of ``KILLS`` in turn."""
    folder = tmp_path_factory.mktemp("runs") / "broken"
    for log in finished.glob(LOG):
        copy = folder / log.relative_to(finished)
        copy.parent.mkdir(parents=True)
        shutil.copy(log, copy)
    for kill in KILLS:
        died = drive(folder, kill)
        assert died.returncode == -signal.SIGKILL, (kill, died.stderr)
    done = drive(folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    "pattern",
    [
        "training/*.safetensors",
        "accuracy/*",
        "targets/*/latency_table.json",
        "targets/*/profile_plan.json",
        "targets/*/front.*",
        "targets/*/choices/*",
        "targets/*/bundles/**/*",
        "data.json",
        "run.json",
    ],
)
def test_killed_run_ends_with_the_same_bytes(finished: Path, broken: Path, pattern: str) -> None:
    """Checkpoint, accuracies, table, front, choice and bundle are byte for byte those of an unbroken run."""
    expected = contents(finished, pattern)
    assert expected
    assert contents(broken, pattern) == expected


def test_stored_samples_are_never_taken_again(finished: Path, broken: Path) -> None:
    """Every measurement that was recorded is used as it is, and none is added."""
    assert contents(finished, LOG)
    assert contents(broken, LOG) == contents(finished, LOG)


def test_nothing_half_written_is_left(broken: Path) -> None:
    """What a killed writer left under a temporary name is gone when the run has ended."""
    assert not [path for path in broken.rglob(".*") if path.name != ".lock"]


def test_profile_killed_on_the_device_keeps_what_it_measured(finished: Path, tmp_path: Path, drive: Drive) -> None:
    """Samples that were taken before a kill are the same after it, and the rest is measured."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("targets"))
    assert drive(folder, "profile:5").returncode == -signal.SIGKILL
    kept = recorded_lines(folder)
    assert len(kept) == 5
    assert drive(folder).returncode == 0
    after = recorded_lines(folder)
    assert len(after) > len(kept)
    assert after[: len(kept)] == kept


def test_profile_killed_in_the_middle_of_a_line_loses_only_that(finished: Path, tmp_path: Path, drive: Drive) -> None:
    """Half a line is ignored with a message, and every measurement before it is kept."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("targets"))
    assert drive(folder, "append:5").returncode == -signal.SIGKILL
    (log,) = folder.glob(LOG)
    whole, cut = log.read_bytes().rsplit(b"\n", 1)
    assert (whole.count(b"\n"), cut[:11]) == (5, b'{"sha256":"')
    again = drive(folder)
    assert again.returncode == 0, again.stderr
    assert f"measure   {log}: ignores its last line, which was cut off while it was written" in again.stderr
    assert log.read_bytes().startswith(whole + b"\n{")
    assert cut not in log.read_bytes()
