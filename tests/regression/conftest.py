"""Measurements made up in advance, and small model files for real ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgenas.devices import Target, load_profile
from edgenas.devices.profile_files import profile_from_dict
from edgenas.profilers import Measurement, MeasureSettings
from edgenas.profilers.measure.validity import Validity

Make = Callable[..., tuple[Measurement, ...]]


@pytest.fixture
def target() -> Target:
    """This machine's default target."""
    return Target(load_profile("localhost"))


@pytest.fixture
def fake_target() -> Target:
    """A device that makes its answers up: the time of a model grows with the size of its file."""
    profile = {
        "name": "board",
        "connection": {"kind": "fake"},
        "runtimes": {"onnxruntime": {}},
        "default": {"runtime": "onnxruntime"},
    }
    return Target(profile_from_dict(profile, "test"))


@pytest.fixture
def make(fake_target: Target) -> Make:
    """Make synthetic measurements, one for each median in ms, with other fields where they are given."""
    one = Measurement(
        model_sha256="0" * 64,
        target=fake_target.to_dict(),
        samples_ms=(1.0, 1.0),
        peak_bytes=1,
        load_ms=1.0,
        device_s=1.0,
        facts={
            "model": "board",
            "cpu": "Cortex-A72",
            "arch": "aarch64",
            "cores": 4,
            "usable_cores": 4,
            "kernel": "6.1",
        },
        versions={"onnxruntime": "1.20.0", "python": "3.11.2"},
        conditions_before={},
        conditions_after={},
        validity=Validity("valid"),
        synthetic=True,
        settings=MeasureSettings().to_dict(),
    )

    def replaced(medians: Sequence[float], **fields: Any) -> tuple[Measurement, ...]:
        return tuple(replace(one, samples_ms=(median, median), **fields) for median in medians)

    return replaced


@pytest.fixture
def no_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure whatever else this machine does: its load is not what these tests are about."""
    module = sys.modules["edgenas.profilers.measure.session"]
    monkeypatch.setattr(module, "assess_validity", lambda before, after, **options: Validity("unverified"))


@pytest.fixture
def make_net(tmp_path: Path) -> Callable[[str, int], Path]:
    """Make an ONNX file of a chain of equal convolutions."""

    def make(name: str, layers: int) -> Path:
        import numpy as np
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        weights = np.random.default_rng(0).standard_normal((8, 8, 3, 3)).astype(np.float32) / 9
        names = ["image", *(f"map{layer}" for layer in range(1, layers)), "out"]
        nodes = [
            helper.make_node("Conv", [names[i], "weights"], [names[i + 1]], pads=[1, 1, 1, 1]) for i in range(layers)
        ]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 32, 32]) for name in ("image", "out")]
        graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], [numpy_helper.from_array(weights, "weights")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        path = tmp_path / name
        path.write_bytes(model.SerializeToString())
        return path

    return make
