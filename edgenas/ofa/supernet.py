"""The weight-sharing network that contains every subnet of a space."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgenas.errors import SpaceError
from edgenas.ofa.layers import ElasticBatchNorm, ElasticMBConv, make_layer
from edgenas.ofa.subnet import Subnet, attach_module
from edgenas.space import Architecture, SearchSpace
from edgenas.space.parts import weight_shapes


class Supernet(nn.Module):
    """Once-for-All's elastic network (arXiv 1908.09791) for any space of parts.

    ``supernet(x, arch)`` and ``supernet.extract(arch)(x)`` are the same
    function in eval mode. The initial weights are drawn from ``seed``.
    """

    def __init__(self, space: SearchSpace, seed: int = 0) -> None:
        super().__init__()
        self.space = space
        with torch.random.fork_rng(devices=[]):  # torch's layers draw defaults from the global generator
            for name, part in space.largest.parts.items():
                attach_module(self, name, make_layer(part, self._kernel_sizes(name)))
        self._initialise(torch.Generator().manual_seed(seed))

    def _kernel_sizes(self, name: str) -> tuple[int, ...]:
        slot = next(slot for slot in self.space.slots if slot.name == name)
        return tuple({part.kernel for part in slot.parts if part is not None})

    def forward(self, x: Tensor, architecture: Architecture) -> Tensor:
        """Logits (N, classes) of ``architecture`` for inputs (N, 3, r, r)."""
        self._check_space(architecture)
        for name, part in architecture.parts.items():
            x = self.get_submodule(name)(x, part)
        return x

    def extract(self, architecture: Architecture) -> Subnet:
        """The stand-alone module of ``architecture`` with copies of its weights, in eval mode."""
        self._check_space(architecture)
        weights = {}
        for name, part in architecture.parts.items():
            tensors = self.get_submodule(name).state_dict()
            for tensor, shape in weight_shapes(part).items():
                full = tensors[tensor]
                if tensor == "depthwise.conv.weight":
                    full = self._transformed(name, full, part.kernel)
                weights[f"{name}.{tensor}"] = full[tuple(slice(size) for size in shape)]
        subnet = Subnet(architecture)
        subnet.load_weights(weights)
        return subnet.eval()

    def _check_space(self, architecture: Architecture) -> None:
        if self.space.differs_in_more_than_resolutions(architecture.space):
            raise SpaceError(f"{architecture} is of another space than this supernet ({self.space.short_hash})")

    def _transformed(self, name: str, weight: Tensor, kernel: int) -> Tensor:
        layer = self.get_submodule(name)
        assert isinstance(layer, ElasticMBConv)
        with torch.no_grad():
            transformed: Tensor = layer.transform(weight, kernel)
        return transformed

    def _initialise(self, generator: torch.Generator) -> None:
        """He's normal initialisation by fan-out; residual branches begin at zero (arXiv 1706.02677)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out), generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01, generator=generator)
                nn.init.zeros_(module.bias)
        for name, part in self.space.largest.parts.items():
            if part.operator in ("mbconv", "bottleneck") and part.shortcut:
                norm = self.get_submodule(f"{name}.project.bn")
                assert isinstance(norm, ElasticBatchNorm)
                nn.init.zeros_(norm.weight)
