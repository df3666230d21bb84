"""Weights to begin with: of a run, and of a file in the released format."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgenas.errors import FormatError, RunError, UsageError
from edgenas.ofa import load_released
from edgenas.pipeline import Run
from edgenas.pipeline.initial_weights import load_initial_weights
from edgenas.space import MobileNetV3

Write = Callable[..., Path]


def test_weights_of_a_run(finished: Path) -> None:
    """Its trained supernet, for a space with other classes."""
    run = Run(finished)
    assert isinstance(run.space, MobileNetV3)
    initial = load_initial_weights(finished, dataclasses.replace(run.space, classes=3))
    assert initial.sha256 == run.workspace.weights_digest
    expected = run.supernet.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in initial.supernet.state_dict().items())


def test_weights_of_a_released_file(released: Write) -> None:
    """A checkpoint of four classes begins a training on two."""
    path = released()
    space = MobileNetV3(width=0.1, classes=2, resolutions=(32,))
    expected = load_released(path).state_dict()
    found = load_initial_weights(path, space).supernet.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_what_are_no_weights(tmp_path: Path, released: Write) -> None:
    """A missing file, a folder that is no run, a file of something else, and weights of another width."""
    space = MobileNetV3(width=0.1, classes=2, resolutions=(32,))
    (tmp_path / "text.pth").write_text("no checkpoint")
    with pytest.raises(UsageError, match="does not exist; give a run folder, or a file"):
        load_initial_weights(tmp_path / "none", space)
    with pytest.raises(RunError, match="is no run folder"):
        load_initial_weights(tmp_path, space)
    with pytest.raises(FormatError, match=r"text\.pth"):
        load_initial_weights(tmp_path / "text.pth", space)
    with pytest.raises(UsageError, match=r"is of another space: width is 0.1 there and 0.2 here"):
        load_initial_weights(released(), dataclasses.replace(space, width=0.2))
