"""Setting up and measuring on an emulated arm64 board with Debian, its own Python and OpenSSH, whose clock may jump."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edgenas.devices import Target, load_profile
from edgenas.errors import ModelError
from edgenas.profilers import Measurement, MeasureSettings, MeasuringSession
from tests.devices.conftest import SetUpBoard, run_on_board

pytestmark = [pytest.mark.slow, pytest.mark.aarch64]

QUICK = MeasureSettings(max_runs=20, min_seconds=0, max_seconds=0.5, warmup_seconds=0.1, model_timeout_seconds=120)
HOURS = 3600.0
JUMP = (
    "until [ -e /run/steady ]; do"
    ' for by in "5 hours" "10 hours ago" "5 hours"; do date -s "$by"; sleep 1; done; done; rm /run/steady'
)


def test_a_profile_is_written(installed_debian: SetUpBoard) -> None:
    """The board says what it is before anything is installed there."""
    profile = load_profile(installed_debian.written)
    assert (profile.cores, profile.python, set(profile.runtimes)) == (2, None, {"onnxruntime", "litert"})


def test_its_own_python_gets_wheels(installed_debian: SetUpBoard) -> None:
    """Debian's Python without pip, on a board without internet, gets this machine's versions of runtimes as wheels."""
    said, installed = installed_debian.said, installed_debian.installed
    assert said[1] == "debian-board: python3 there has no pip; fetching wheels here instead"
    assert (installed.how, installed.skipped) == ("from wheels fetched here", {})
    assert installed.python == "/data/root/.cache/edgenas/venv/bin/python"
    assert installed.versions == {
        "onnxruntime": importlib.metadata.version("onnxruntime"),
        "litert": importlib.metadata.version("ai-edge-litert"),
    }


@contextmanager
def jumping_clock(board: SetUpBoard) -> Iterator[None]:
    """Set a board's clock five hours forward, back and right, again and again, until the context ends."""
    with ThreadPoolExecutor(1) as pool:
        jumps = pool.submit(run_on_board, board, JUMP)
        try:
            yield
        finally:
            run_on_board(board, "touch /run/steady")
            jumps.result()


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_a_jumping_clock_changes_no_measurement(
    ready_debian: SetUpBoard, conv: Path, make_relu: Callable[..., Path], runtime: str
) -> None:
    """Latencies are spans of a steady clock, no deadline passes early, and emulated time has no verdict of valid."""
    model = conv if runtime == "onnxruntime" else make_relu((1, 16))
    started = time.monotonic()
    with jumping_clock(ready_debian), MeasuringSession(Target(ready_debian.profile, runtime=runtime)) as session:
        found = list(session.iter_measurements([model] * 4, QUICK))
    seconds, now = time.monotonic() - started, time.time()
    assert len(found) == 4
    clocks = []
    for each in found:
        assert isinstance(each, Measurement)
        assert each.validity.status != "valid"
        assert all(ms > 0 for ms in (*each.samples_ms, each.load_ms))
        assert sum(each.samples_ms) / 1000 < each.device_s < seconds
        clocks += [each.conditions_before["time"] - now, each.conditions_after["time"] - now]
    assert max(clocks) - min(clocks) > 4 * HOURS  # it did jump meanwhile


def test_a_jumping_clock_keeps_no_slow_model_waiting(ready_debian: SetUpBoard, conv: Path) -> None:
    """A model that takes too long ends at its deadline."""
    started = time.monotonic()
    with jumping_clock(ready_debian), MeasuringSession(Target(ready_debian.profile)) as session:
        (found,) = session.iter_measurements([conv], replace(QUICK, model_timeout_seconds=0.01))
    assert isinstance(found, ModelError)
    assert "is too slow for onnxruntime" in str(found)
    assert time.monotonic() - started < 90
