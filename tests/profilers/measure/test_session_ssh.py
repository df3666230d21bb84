"""Measuring through SSH, on a real server on this machine's loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgenas.devices import DeviceProfile, Target
from edgenas.devices.ssh.testing import Sshd
from edgenas.errors import DeviceError
from edgenas.profilers import (
    Measurement,
    MeasurementResult,
    MeasureSettings,
    MeasuringRounds,
    MeasuringSession,
    measure_model,
)

BRIEF = MeasureSettings(max_processes=6, max_seconds=0.1, min_seconds=0, max_runs=20, warmup_seconds=0.05)


def test_a_model_is_measured_through_ssh(conv: Path, ssh_profile: DeviceProfile) -> None:
    """Six processes, real samples, and the device's own facts."""
    result = measure_model(conv, Target(ssh_profile), BRIEF)
    assert len(result.measurements) + len(result.rejected) >= 6
    assert result.median_ms > 0
    assert not result.synthetic


def test_a_broken_connection_loses_nothing_and_the_next_call_goes_on(
    conv: Path, ssh_profile: DeviceProfile, sshd: Sshd
) -> None:
    """The server's sessions are killed after three processes: those are kept, and a new session measures the rest."""
    kept: list[Measurement] = []

    def keep(number: int, measurement: Measurement) -> None:
        kept.append(measurement)
        if len(kept) == 3:
            sshd.kill_sessions()

    target = Target(ssh_profile)
    rounds = MeasuringRounds([conv], target, BRIEF, on_process=keep)
    with pytest.raises(DeviceError) as error, MeasuringSession(target) as session:
        session.measure(rounds)
    assert "\n" not in str(error.value)
    first = list(kept)
    assert 3 <= len(first) < 6
    with MeasuringSession(target) as session:
        session.measure(rounds)
    assert kept[: len(first)] == first
    (result,) = rounds.outcomes()
    assert isinstance(result, MeasurementResult)
    assert len(result.measurements) + len(result.rejected) == len(kept) >= 6
