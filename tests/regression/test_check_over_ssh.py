"""Checks on a device behind SSH that is lost, or hangs, in the middle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgenas.devices import DeviceProfile
from edgenas.devices.ssh.testing import Sshd
from edgenas.regression import Baseline, check_model, record_baseline


@pytest.fixture
def nets(make_net: Callable[[str, int], Path]) -> tuple[Path, Path]:
    """A network, and one that is six times as slow."""
    return make_net("before.onnx", 3), make_net("after.onnx", 18)


@pytest.mark.usefixtures("no_conditions")
def test_a_connection_lost_in_mid_check_is_not_measurable(
    nets: tuple[Path, Path], ssh_profile: DeviceProfile, sshd: Sshd, tmp_path: Path
) -> None:
    """After three rounds of a model six times as slow the connection breaks: nothing is proven, and the rounds stay."""
    record_baseline(nets[0], ssh_profile, tmp_path / "b.json")
    rounds = 0

    def lose(seconds: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            sshd.kill_sessions()

    got = check_model(nets[1], ssh_profile, tmp_path / "b.json", on_round=lose)
    assert got.outcome == "not measurable"
    assert got.reasons[0].startswith("loopback")
    assert 3 <= len(got.rounds) < 8
    assert all(finding.ratio > 2 for finding in got.findings)


@pytest.mark.usefixtures("no_conditions")
def test_a_baseline_of_one_connection_serves_another(
    nets: tuple[Path, Path], ssh_profile: DeviceProfile, tmp_path: Path
) -> None:
    """The connection is no part of the fingerprint, and the copy of the model is measured, not the file of then."""
    record_baseline(nets[0], ssh_profile, tmp_path / "b.json")
    nets[0].unlink()
    got = check_model(nets[1], ssh_profile, tmp_path / "b.json", latency="+50%")
    assert (got.outcome, got.method) == ("regressed", "side by side")
    other = got.rounds[0].other
    assert other is not None
    assert other.model_sha256 == Baseline.load(tmp_path / "b.json").model_sha256


def test_a_device_that_does_not_answer_is_not_measurable(nets: tuple[Path, Path], sshd: Sshd) -> None:
    """Nobody listens on the port; a model is not to blame for that."""
    profile = sshd.profile(sshd.connection_data(port=1))
    got = check_model(nets[0], profile, latency="15ms")
    assert (got.outcome, got.rounds) == ("not measurable", ())
    assert got.reasons
