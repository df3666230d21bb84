"""The stand-alone module of one architecture, in plain PyTorch without elastic layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from edgenas.space import Architecture, Part

_ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hswish": nn.Hardswish, "none": nn.Identity}


class _ConvBatchNorm(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        eps: float,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: str = "none",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=eps)
        self.act = _ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.act(self.bn(self.conv(x)))
        return result


class _Conv(nn.Module):
    def __init__(self, part: Part) -> None:
        super().__init__()
        padding = part.kernel // 2
        channels = part.in_channels, part.out_channels
        self.conv = nn.Conv2d(*channels, part.kernel, part.stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(part.out_channels, eps=part.bn_eps) if part.batch_norm else nn.Identity()
        self.act = _ACTIVATIONS[part.activation]()
        self.has_shortcut = part.shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(self.conv(x)))
        return out + x if self.has_shortcut else out


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
        mid, eps, act = part.mid_channels, part.bn_eps, part.activation
        self.expand = _ConvBatchNorm(part.in_channels, mid, eps, activation=act) if part.expand else nn.Identity()
        self.depthwise = _ConvBatchNorm(mid, mid, eps, part.kernel, part.stride, groups=mid, activation=act)
        self.se = _SqueezeExcite(mid, part.se_channels) if part.se_channels else nn.Identity()
        self.project = _ConvBatchNorm(mid, part.out_channels, eps)
        self.has_shortcut = part.shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.se(self.depthwise(self.expand(x))))
        return out + x if self.has_shortcut else out


class _Bottleneck(nn.Module):
    def __init__(self, part: Part) -> None:
        super().__init__()
        mid, eps, act = part.mid_channels, part.bn_eps, part.activation
        self.reduce = _ConvBatchNorm(part.in_channels, mid, eps, activation=act)
        self.filter = _ConvBatchNorm(mid, mid, eps, part.kernel, part.stride, activation=act)
        self.project = _ConvBatchNorm(mid, part.out_channels, eps)
        pools = part.projected and part.stride > 1
        self.pool = nn.AvgPool2d(part.stride, ceil_mode=True) if pools else nn.Identity()
        self.shortcut = _ConvBatchNorm(part.in_channels, part.out_channels, eps) if part.projected else nn.Identity()
        self.act = _ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.act(self.project(self.filter(self.reduce(x))) + self.shortcut(self.pool(x)))
        return result


class _Linear(nn.Module):
    def __init__(self, part: Part) -> None:
        super().__init__()
        self.linear = nn.Linear(part.in_channels, part.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear(x.flatten(1))
        return result


_MODULES: dict[str, Callable[[Part], nn.Module]] = {
    "conv": _Conv,
    "mbconv": _MBConv,
    "bottleneck": _Bottleneck,
    "max_pool": lambda part: nn.MaxPool2d(part.kernel, part.stride, part.kernel // 2),
    "pool": lambda part: nn.AdaptiveAvgPool2d(1),
    "linear": _Linear,
}


def attach_module(root: nn.Module, name: str, module: nn.Module) -> None:
    """Register ``module`` below ``root`` under a dotted name, with empty modules for the names between."""
    *path, last = name.split(".")
    for step in path:
        if not hasattr(root, step):
            root.add_module(step, nn.Module())
        root = root.get_submodule(step)
    root.add_module(last, module)


class Subnet(nn.Module):
    """The plain PyTorch module of one architecture: inputs (N, 3, r, r), logits (N, classes).

    Its tensors are named ``<place>.<tensor>`` as in ``edgenas.space.parts.weight_shapes``.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self._places = tuple(architecture.parts)
        with torch.random.fork_rng(devices=[]):  # torch's layers draw defaults from the global generator
            for name, part in architecture.parts.items():
                attach_module(self, name, _MODULES[part.operator](part))

    def forward(self, x: Tensor) -> Tensor:
        for name in self._places:
            x = self.get_submodule(name)(x)
        return x

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Set all tensors by name. Raises RuntimeError when one is missing, unknown or of another shape."""
        counters = {name: value for name, value in self.state_dict().items() if name.endswith("num_batches_tracked")}
        self.load_state_dict({**counters, **weights})

    def weights(self) -> dict[str, np.ndarray]:
        """Return copies of the tensors by name, as NumPy arrays for exporters."""
        state = self.state_dict().items()
        return {name: t.detach().numpy().copy() for name, t in state if not name.endswith("num_batches_tracked")}
