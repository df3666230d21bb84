"""Training that begins with trained weights: what is taken over, what is new, and what resumes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgenas.data import DataSet
from edgenas.errors import RunError, UsageError
from edgenas.ofa import InitialWeights, Schedule, Supernet, Trainer, TrainingFiles, load_checkpoint
from edgenas.ofa.initial_weights import adapt_supernet, check_initial_weights
from edgenas.space import MobileNetV3, ProxylessNAS, SearchSpace, Stage

Lively = Callable[[SearchSpace], Supernet]


def _initial(supernet: Supernet) -> InitialWeights:
    return InitialWeights(supernet, "runs/source", "0" * 64)


def test_other_classes_get_a_new_classifier_and_nothing_else(tiny: MobileNetV3, lively: Lively) -> None:
    """All tensors but the classifier's two are the source's, which stays as it is; the new ones follow the seed."""
    source = lively(dataclasses.replace(tiny, classes=7, resolutions=(8,)))
    before = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    adapted = adapt_supernet(tiny, _initial(source), 3).state_dict()
    new = {name for name, tensor in adapted.items() if not torch.equal(tensor, before[name])}
    assert new == {"classifier.linear.weight", "classifier.linear.bias"}
    fresh = Supernet(tiny, 3).state_dict()
    assert all(torch.equal(adapted[name], fresh[name]) for name in new)
    assert all(torch.equal(tensor, before[name]) for name, tensor in source.state_dict().items())


def test_equal_classes_keep_the_classifier(tiny: MobileNetV3, lively: Lively) -> None:
    """Every tensor is the source's."""
    source = lively(tiny)
    adapted = adapt_supernet(tiny, _initial(source), 0).state_dict()
    assert all(torch.equal(adapted[name], tensor) for name, tensor in source.state_dict().items())


def test_another_space_is_refused_by_field(tiny: MobileNetV3) -> None:
    """The message says which fields differ and how, in few words where a value is long; and families before all."""
    wider = dataclasses.replace(tiny, width=1.0, stages=(*tiny.stages, Stage(48, 2, "relu", False)))
    for space, message in (
        (wider, "is of another space: width is 1.0 there and 0.5 here; stages differs"),
        (ProxylessNAS(width=0.1), "is of family proxyless, the config has mobilenet_v3"),
    ):
        with pytest.raises(UsageError) as refused:
            check_initial_weights(tiny, _initial(Supernet(space)))
        assert str(refused.value) == f"runs/source: {message}; give the config the space of the weights"


def test_training_begins_with_them_and_remembers_whose_they_are(
    tiny: MobileNetV3, digits: DataSet, brief: Schedule, lively: Lively, tmp_path: Path
) -> None:
    """One step at a tiny rate leaves the weights where they were; it resumes with the same ones only, from anywhere."""
    slow = dataclasses.replace(brief.phases[0], learning_rate=1e-9)
    schedule = dataclasses.replace(brief, phases=(slow,), max_steps=1, weight_decay=0.0)
    files, source = TrainingFiles(tmp_path / "checkpoint", tmp_path / "teacher"), lively(tiny)
    Trainer(tiny, digits, schedule, 0, files, initial=_initial(source)).run(lambda step: None)
    trained = load_checkpoint(files.checkpoint)
    assert trained.recipe["initial"] == {"name": "runs/source", "sha256": "0" * 64}
    for name, parameter in trained.supernet.named_parameters():
        torch.testing.assert_close(parameter, source.get_parameter(name), rtol=0, atol=1e-6)
    moved = dataclasses.replace(_initial(source), name="/elsewhere/runs/source")
    for initial in (_initial(source), moved):
        assert Trainer(tiny, digits, schedule, 0, files, initial=initial).finished
    others = dataclasses.replace(moved, sha256="1" * 64)
    changed = dataclasses.replace(_initial(source), sha256="1" * 64)
    for wrong, message in (
        (None, "runs/source then, none now"),
        (others, "runs/source then, /elsewhere/runs/source now"),
        (changed, "runs/source, whose weights were changed"),
    ):
        with pytest.raises(RunError, match=rf"trained with another file or run to begin with \(--from {message}\);"):
            _ = Trainer(tiny, digits, schedule, 0, files, initial=wrong).finished
