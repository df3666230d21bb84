"""Weights that training begins with: a trained supernet, adapted to other classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgenas.errors import UsageError
from edgenas.ofa.supernet import Supernet
from edgenas.space import SearchSpace

_FREE = ("classes", "resolutions")  # what two spaces may differ in: the classifier is made anew


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


def check_initial_weights(space: SearchSpace, initial: InitialWeights) -> None:
    """Raise UsageError unless the weights are of this space, other classes and resolutions aside."""
    here, there = space.to_dict(), initial.supernet.space.to_dict()
    fields = [name for name in {**here, **there} if name not in _FREE and here.get(name) != there.get(name)]
    if fields:
        described = "; ".join(f"{name} is {there.get(name)} there and {here.get(name)} here" for name in fields)
        raise UsageError(f"{initial.name}: is of another space: {described}; give the config the space of the weights")


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
