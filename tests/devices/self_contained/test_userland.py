"""The userland of this machine's processor, put together from Debian's packages and used without anything else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.devices import Deadline, DeviceProfile, Target, link
from edgenas.devices.self_contained.debian import is_debian_here
from edgenas.devices.self_contained.layout import MACHINES
from edgenas.devices.self_contained.userland import prepare_userland
from edgenas.devices.ssh.testing import Sshd
from edgenas.errors import EdgeNASError, UsageError
from edgenas.pipeline.device_setup import set_up_device
from edgenas.profilers import MeasuringSession

MACHINE = os.uname().machine


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceProfile]:
    """A server on loopback whose shells have hardly any variables, and whose own Python is not used."""
    program, lock = link._build_worker_program, f"{tmp_path}/edgenas.lock".encode()
    monkeypatch.setattr(link, "_build_worker_program", lambda *of: program(*of).replace(b"/tmp/edgenas.lock", lock))
    server = Sshd(tmp_path / "sshd")
    config = server.folder / "sshd_config"
    config.write_text(config.read_text().replace("SetEnv ", "SetEnv PATH=/usr/bin:/bin HOME=/ PYTHONPATH=/no/where "))
    runtimes: dict[str, Any] = {"runtimes": {"onnxruntime": {}, "litert": {}}, "default": {"runtime": "onnxruntime"}}
    with server:
        yield server.profile(python=None, work_dir=str(tmp_path / "board"), **runtimes)


@pytest.mark.slow
def test_models_run_in_it(board: DeviceProfile, conv: Path) -> None:
    """A model gives, bit for bit, what it gives with this machine's Python, and the userland is made once."""
    import onnxruntime

    if not is_debian_here() or MACHINE not in MACHINES:
        pytest.skip("a userland is put together on Debian")
    said: list[str] = []
    installed = set_up_device(board, self_contained=True, say=said.append)
    assert set(installed.versions) == {"onnxruntime", "litert"}
    assert said[0].startswith("loopback: putting Python 3.11, onnxruntime, litert for")
    image = np.random.default_rng(1).standard_normal((1, 3, 16, 16)).astype(np.float32)
    with MeasuringSession(Target(board)) as session:
        (found,) = session.compute_outputs(conv, [image])
    assert found.tobytes() == onnxruntime.InferenceSession(str(conv)).run(None, {"image": image})[0].tobytes()
    said.clear()
    packed = prepare_userland(board, MACHINE, Deadline(60), say=said.append)
    assert said == []
    assert len(packed.packed) < 45e6
    assert set_up_device(board, userland=packed.path).how == "self-contained, already installed"


def test_a_wheel_of_numpy_is_refused(board: DeviceProfile, tmp_path: Path) -> None:
    """Debian's numpy is a part of it."""
    wheel = tmp_path / "numpy-1.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    with pytest.raises(UsageError, match="gets Debian's numpy in a self-contained runtime; leave it out"):
        prepare_userland(board, "aarch64", Deadline(60), wheels=[wheel])


@pytest.mark.slow
def test_a_runtime_without_wheels_is_named(
    board: DeviceProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the default runtime cannot be fetched nothing is kept of the others."""
    if not is_debian_here():
        pytest.skip("a userland is put together on Debian")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where no other test has put one together
    with pytest.raises(EdgeNASError, match=r"loopback: no wheel of onnxruntime for Python 3\.11 on aarch64"):
        prepare_userland(board, "aarch64", Deadline(300))
