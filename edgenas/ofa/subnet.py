"""The stand-alone module of one architecture: plain PyTorch with nothing elastic left in it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from edgenas.space import Architecture, Part
from edgenas.space.parts import BN_EPS

_ACTIVATIONS = {"relu": nn.ReLU, "hswish": nn.Hardswish, "none": nn.Identity}


class _Conv(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: str = "none",
        batch_norm: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=bias)
        self.bn = nn.BatchNorm2d(out_channels, eps=BN_EPS) if batch_norm else nn.Identity()
        self.act = _ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.act(self.bn(self.conv(x)))
        return result


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.relu = nn.ReLU()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        result: Tensor = x * self.gate(self.expand(self.relu(self.reduce(pooled))))
        return result


class _MBConv(nn.Module):
    def __init__(self, part: Part) -> None:
        super().__init__()
        mid = part.mid_channels
        act = part.activation
        self.expand = _Conv(part.in_channels, mid, activation=act) if part.expand else nn.Identity()
        self.depthwise = _Conv(mid, mid, part.kernel, part.stride, groups=mid, activation=act)
        self.se = _SqueezeExcite(mid, part.se_channels) if part.se_channels else nn.Identity()
        self.project = _Conv(mid, part.out_channels)
        self.shortcut = part.shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.se(self.depthwise(self.expand(x))))
        return out + x if self.shortcut else out


class _Linear(nn.Module):
    def __init__(self, part: Part) -> None:
        super().__init__()
        self.linear = nn.Linear(part.in_channels, part.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear(x.flatten(1))
        return result


def _plain(part: Part) -> nn.Module:
    if part.operator == "conv":
        return _Conv(
            part.in_channels,
            part.out_channels,
            part.kernel,
            part.stride,
            activation=part.activation,
            batch_norm=part.batch_norm,
            bias=part.bias,
        )
    if part.operator == "mbconv":
        return _MBConv(part)
    return nn.AdaptiveAvgPool2d(1) if part.operator == "pool" else _Linear(part)


def attach(root: nn.Module, name: str, module: nn.Module) -> None:
    """Register ``module`` under a dotted name, making the containers in between."""
    *path, last = name.split(".")
    for step in path:
        if not hasattr(root, step):
            root.add_module(step, nn.Module())
        root = root.get_submodule(step)
    root.add_module(last, module)


class Subnet(nn.Module):
    """One architecture as plain PyTorch: input (N, 3, r, r), output logits (N, classes).

    Tensors are named ``<place>.<tensor>`` as in ``edgenas.space.parts``.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self._places = tuple(architecture.parts)
        with torch.random.fork_rng(devices=[]):  # torch's layers draw defaults from the global generator
            for name, part in architecture.parts.items():
                attach(self, name, _plain(part))

    def forward(self, x: Tensor) -> Tensor:
        for name in self._places:
            x = self.get_submodule(name)(x)
        return x

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take tensors by name; every tensor must be there (RuntimeError otherwise)."""
        counters = {name: value for name, value in self.state_dict().items() if name.endswith("num_batches_tracked")}
        self.load_state_dict({**counters, **weights})

    def weights(self) -> dict[str, np.ndarray]:
        """The tensors by name as NumPy arrays, as exporters take them."""
        state = self.state_dict().items()
        return {name: t.detach().numpy().copy() for name, t in state if not name.endswith("num_batches_tracked")}
