"""Weights that training begins with: a trained supernet, adapted to other classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from edgenas.errors import UsageError
from edgenas.ofa.supernet import Supernet
from edgenas.space import SearchSpace

_FREE = ("classes", "resolutions")  # what two spaces may differ in: the classifier is made anew
_LONGEST_FIELD = 100  # characters of a message


@dataclass(frozen=True, eq=False)
class InitialWeights:
    """A trained supernet that training begins with.

    Attributes:
        supernet: The weights.
        name: Where they are from, for the recipe and messages.
        sha256: The digest of their file, by which training recognises them when it resumes.
    """

    supernet: Supernet
    name: str
    sha256: str


def check_family(space: SearchSpace, name: str, family: str) -> None:
    """Raise UsageError unless weights of this name are of the space's family."""
    if family != space.family:
        raise UsageError(
            f"{name}: is of family {family}, the config has {space.family}; give the config the space of the weights"
        )


def check_initial_weights(space: SearchSpace, initial: InitialWeights) -> None:
    """Raise UsageError unless the weights are of this space, other classes and resolutions aside."""
    check_family(space, initial.name, initial.supernet.space.family)
    here, there = space.to_dict(), initial.supernet.space.to_dict()
    differing = [
        _describe_field(name, there[name], here[name])
        for name in here
        if name not in _FREE and here[name] != there[name]
    ]
    if differing:
        raise UsageError(
            f"{initial.name}: is of another space: {'; '.join(differing)}; give the config the space of the weights"
        )


def _describe_field(name: str, there: Any, here: Any) -> str:
    """Return a field with both values; without them where they are long, as those of stages."""
    described = f"{name} is {there} there and {here} here"
    return described if len(described) <= _LONGEST_FIELD else f"{name} differs"


def adapt_supernet(space: SearchSpace, initial: InitialWeights, seed: int) -> Supernet:
    """Return a supernet of a space with a trained one's weights, and a new classifier where the classes differ.

    Args:
        space: The space, with classes of its own.
        initial: Weights that ``check_initial_weights`` accepts.
        seed: Decides the weights of a new classifier.
    """
    supernet = Supernet(space, seed)
    weights = initial.supernet.state_dict()
    with torch.no_grad():
        for name, tensor in supernet.state_dict().items():
            if tensor.shape == weights[name].shape:
                tensor.copy_(weights[name])
    return supernet
