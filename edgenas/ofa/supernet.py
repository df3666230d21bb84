"""The supernet: the weight-sharing network that contains every subnet of a space."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgenas.errors import SpaceError
from edgenas.ofa.layers import ElasticBlock
from edgenas.ofa.subnet import Subnet, attach_module
from edgenas.space import Architecture, Part, SearchSpace
from edgenas.space.check import check_memory


class Supernet(nn.Module):
    """Once-for-All's elastic network (arXiv 1908.09791) for any search space.

    In eval mode ``supernet(x, architecture)`` equals
    ``supernet.extract(architecture)(x)``.

    Args:
        space: The search space.
        seed: Decides the initial weights.
        only: The only subnet that it contains, where one is trained alone; by default all of the space.

    Raises:
        SpaceError: The network does not fit into the memory of this machine.

    Example:
        >>> import torch
        >>> from edgenas import MobileNetV3, Supernet
        >>> space = MobileNetV3(width=0.25, resolutions=(32,), classes=10)
        >>> supernet = Supernet(space)
        >>> supernet
        Supernet(597,650 parameters, MobileNetV3(width 0.25, 10 classes, 32 to 32 pixels, 19x0at))
        >>> subnet = supernet.extract(space.smallest)
        >>> subnet(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """

    def __init__(self, space: SearchSpace, seed: int = 0, only: Architecture | None = None) -> None:
        super().__init__()
        check_memory(space)
        self.space, self.only = space, only
        parts = _parts_of_space(space) if only is None else {name: (part,) for name, part in only.parts.items()}
        with torch.random.fork_rng(devices=[]):  # torch's layers draw defaults from the global generator
            for name, choices in parts.items():
                attach_module(self, name, ElasticBlock(choices))
        self._initialise_weights(torch.Generator().manual_seed(seed))

    def __repr__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.parameters())
        return f"Supernet({parameters:,} parameters, {self.space!r})"

    def forward(self, x: Tensor, architecture: Architecture) -> Tensor:
        """Return the logits (N, classes) of ``architecture`` for inputs (N, C, H, W)."""
        self._check_space(architecture)
        for name, part in architecture.parts.items():
            x = self.get_submodule(name)(x, part)
        return x

    def extract(self, architecture: Architecture) -> Subnet:
        """Return the stand-alone module of ``architecture`` with copies of its weights, in eval mode."""
        self._check_space(architecture)
        weights: dict[str, Tensor] = {}
        for name, part in architecture.parts.items():
            block = self.get_submodule(name)
            assert isinstance(block, ElasticBlock)
            weights |= {f"{name}.{tensor}": value for tensor, value in block.part_weights(part).items()}
        subnet = Subnet(architecture)
        subnet.load_weights(weights)
        return subnet.eval()

    def _check_space(self, architecture: Architecture) -> None:
        if self.space.differs_in_more_than_resolutions(architecture.space):
            raise SpaceError(f"{architecture} is of another space than this supernet ({self.space.short_hash})")
        if self.only is not None and architecture.genes != self.only.genes:
            raise SpaceError(f"{architecture} is not in this network, which only has the weights of {self.only}")

    def _initialise_weights(self, generator: torch.Generator) -> None:
        """Draw the weights by He's normal initialisation; residual branches begin at zero (arXiv 1706.02677)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out), generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01, generator=generator)
                nn.init.zeros_(module.bias)
        for name, part in (self.only or self.space.largest).parts.items():
            for norm in part.graph.branch_norms:
                nn.init.zeros_(self.get_parameter(f"{name}.{norm.name}.weight"))


def _parts_of_space(space: SearchSpace) -> dict[str, tuple[Part, ...]]:
    """Return the different parts of each place, the largest first."""
    parts = {}
    for slot in space.slots:  # the largest choices are the last
        unequal = dict.fromkeys(part for part in reversed(slot.parts) if part is not None)
        parts[slot.name] = tuple({part.key: part for part in unequal}.values())
    return parts
