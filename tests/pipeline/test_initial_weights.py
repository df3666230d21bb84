"""Weights to begin with: of a run, and of a file in the released format."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgenas.errors import FormatError, RunError, UsageError
from edgenas.files import sha256_hex
from edgenas.ofa import load_released
from edgenas.pipeline import Run
from edgenas.pipeline.initial_weights import load_initial_weights
from edgenas.pipeline.progress import Silent
from edgenas.space import MobileNetV3, ResNet50D
from tests.small_run import SCHEDULE, SPACE

Write = Callable[..., Path]
ONE_STEP = {**SCHEDULE, "max_steps": 1}


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


@pytest.fixture
def adapted(tmp_path: Path) -> Run:
    """A run that began with the weights of the run ``source`` beside it; one step each."""
    source, run = (Run(tmp_path / name, SPACE, progress=Silent()) for name in ("source", "adapted"))
    source.train(schedule=ONE_STEP)
    run.train(schedule=ONE_STEP, initial=source.folder.root)
    return run


def test_the_card_names_the_weights_that_training_began_with(adapted: Run, tmp_path: Path) -> None:
    """A bundle of an adapted run has their name and digest; of a run that began with random weights, nothing."""
    cards = [
        run.export(SPACE.smallest, run.target("localhost"), tmp_path / f"ship{number}").card
        for number, run in enumerate((adapted, Run(tmp_path / "source", progress=Silent())))
    ]
    sha256 = sha256_hex((tmp_path / "source" / "training" / "checkpoint.safetensors").read_bytes())
    assert cards[0]["origin"] == {"initial": str(tmp_path / "source"), "sha256": sha256}
    assert cards[1]["origin"] is None


def test_what_are_no_weights(tmp_path: Path, released: Write) -> None:
    """A missing file, a folder that is no run, a file of something else, and weights of another width."""
    space = MobileNetV3(width=0.1, classes=2, resolutions=(32,))
    for name in ("text.pth", "checkpoint.safetensors"):
        (tmp_path / name).write_text("no checkpoint")
    with pytest.raises(UsageError, match="does not exist; give a run folder, or a file"):
        load_initial_weights(tmp_path / "none", space)
    with pytest.raises(RunError, match="is no run folder; give --from a run folder, or a file of a released"):
        load_initial_weights(tmp_path, space)
    with pytest.raises(UsageError, match="to begin with the weights of a run, give the run folder"):
        load_initial_weights(tmp_path / "checkpoint.safetensors", space)
    with pytest.raises(FormatError, match=r"text\.pth"):
        load_initial_weights(tmp_path / "text.pth", space)
    with pytest.raises(UsageError, match=r"is of another space: width is 0.1 there and 0.2 here"):
        load_initial_weights(released(), dataclasses.replace(space, width=0.2))
    with pytest.raises(UsageError, match=r"net\.pth: is of family mobilenet_v3, the config has resnet50d;"):
        load_initial_weights(released(), ResNet50D())
