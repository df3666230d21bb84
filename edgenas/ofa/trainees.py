"""What is trained: a whole supernet, or one of its subnets alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgenas.ofa.initial_weights import InitialWeights, adapt_supernet
from edgenas.ofa.schedule import Phase
from edgenas.ofa.supernet import Supernet
from edgenas.space import Architecture, SearchSpace


@dataclass(frozen=True, eq=False)
class WholeSupernet:
    """A supernet, all of whose subnets are trained together. The first phase trains the teacher of the others.

    Attributes:
        space: The search space.
        initial: Trained weights to begin with; None for random ones.
    """

    space: SearchSpace
    initial: InitialWeights | None = None

    has_teacher = False
    begin_anew = "train in a new run folder"

    @property
    def recipe(self) -> dict[str, Any]:
        """What training begins with, for the recipe; empty for random weights."""
        initial = self.initial
        return {} if initial is None else {"initial": {"name": initial.name, "sha256": initial.sha256}}

    def make_network(self, seed: int) -> Supernet:
        """Return the network that training begins with."""
        return Supernet(self.space, seed) if self.initial is None else adapt_supernet(self.space, self.initial, seed)

    def sample(self, phase: Phase, rng: np.random.Generator) -> list[Architecture]:
        """Return the subnets of a step."""
        return self.space.decode(phase.sample(self.space, rng))


@dataclass(frozen=True, eq=False)
class SingleSubnet:
    """A subnet that is trained alone. The largest network of its supernet is the teacher.

    Attributes:
        architecture: The subnet.
        supernet: The trained supernet that it belongs to.
        from_scratch: Whether training begins with random weights, not with those that the subnet inherits.
    """

    architecture: Architecture
    supernet: InitialWeights
    from_scratch: bool = False

    has_teacher = True
    begin_anew = "fine-tune again"

    @property
    def space(self) -> SearchSpace:
        """The search space."""
        return self.architecture.space

    @property
    def began_with(self) -> str:
        """What training begins with, in words."""
        return "random weights" if self.from_scratch else "inherited weights"

    @property
    def recipe(self) -> dict[str, Any]:
        """The subnet, the digest of its supernet, and what training begins with, for the recipe."""
        supernet, architecture = self.supernet.sha256, self.architecture.id
        return {"finetuned": {"architecture": architecture, "supernet": supernet, "began_with": self.began_with}}

    def make_network(self, seed: int) -> Supernet:
        """Return the network that training begins with, which has the weights of this subnet alone."""
        network = Supernet(self.space, seed, self.architecture)
        if not self.from_scratch:
            inherited = self.supernet.supernet.extract(self.architecture).state_dict()
            network.load_state_dict({name: inherited[name] for name in network.state_dict()})
        return network

    def sample(self, phase: Phase, rng: np.random.Generator) -> list[Architecture]:
        """Return the subnets of a step: always this one."""
        return [self.architecture] * phase.subnets
