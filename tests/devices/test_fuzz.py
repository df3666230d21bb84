"""Whatever a device says, there is a result or an EdgeNASError, in bounded time and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_no_answer_of_a_device_does_harm(seed: int) -> None:
    """Thousands of changed answers of worker, shell, agent, install script and check end in no other way."""
    command = [sys.executable, "-m", "tests.devices.fuzz_answers", str(seed), "3000"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
