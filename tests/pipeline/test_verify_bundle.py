"""Verifying a bundle on a device that stores other outputs than the model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.devices import Target
from edgenas.errors import DeviceError, VerificationError
from edgenas.pipeline import Run
from edgenas.pipeline.progress import Silent
from edgenas.pipeline.verify_bundle import verify_bundle
from edgenas.profilers import MeasuringSession
from edgenas.runtimes import ExportFormat


@pytest.fixture(scope="module")
def shipped(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a small network with ten classes. Do not write to it."""
    run, out = Run(trained, progress=Silent()), tmp_path_factory.mktemp("ship")
    return run.export_all(run.space.smallest, run.target("localhost"), out, [ExportFormat()])[0].bundle.path


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [np.zeros((1, 10), np.float32)] * 2,
        [np.float32(0)],
        [np.zeros((1, 9), np.float32)],
        [np.zeros((1, 10), bool)],
    ],
    ids=["none", "two", "a number", "another shape", "another type"],
)
def test_other_outputs_are_the_devices_fault(
    shipped: Path, monkeypatch: pytest.MonkeyPatch, outputs: list[Any]
) -> None:
    """A file of outputs that is well-formed must also be that of the model."""
    monkeypatch.setattr(MeasuringSession, "compute_outputs", lambda *of: [np.asarray(each) for each in outputs])
    with pytest.raises(
        DeviceError, match=r"^localhost: answered nonsense \(outputs: .* gives one float32 array of 1x10"
    ):
        verify_bundle(shipped, Target("localhost"))


@pytest.mark.parametrize("value", [np.nan, 1e30])
def test_wrong_numbers_fail_the_verification(shipped: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Logits that are not those of the sample, or none, are no success."""
    wrong = np.full((1, 10), value, np.float32)
    monkeypatch.setattr(MeasuringSession, "compute_outputs", lambda *of: [wrong])
    with pytest.raises(VerificationError, match=r"does not give the logits of sample\.npz on localhost"):
        verify_bundle(shipped, Target("localhost"))
