"""Elastic layers: each holds the largest weights and computes with leading slices of them.

What is active is an argument of ``forward``, never state. Names of submodules
are those of ``edgenas.space.parts.weight_shapes``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgenas.space.parts import BN_EPS, Part

BN_MOMENTUM = 0.1


def activate(x: Tensor, name: str) -> Tensor:
    """Apply an activation by its name in a part."""
    if name == "relu":
        return functional.relu(x, inplace=True)
    if name == "hswish":
        return functional.hardswish(x)
    return x


class ElasticBatchNorm(nn.Module):
    """Batch norm over as many leading channels as the input has.

    In training its running statistics are those of whatever subnets ran last;
    a subnet's own are re-estimated before it is evaluated (calibration.py).
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        return functional.batch_norm(
            x,
            self.running_mean[:n],
            self.running_var[:n],
            self.weight[:n],
            self.bias[:n],
            self.training,
            BN_MOMENTUM,
            BN_EPS,
        )


class KernelTransform(nn.Module):
    """Smaller kernels as learned linear maps of the centre of larger ones (Once-for-All, section 3.3).

    One matrix per step down, shared by all channels and the identity at first.
    """

    def __init__(self, kernel_sizes: Sequence[int]) -> None:
        super().__init__()
        self.kernel_sizes = tuple(sorted(kernel_sizes, reverse=True))
        for large, small in itertools.pairwise(self.kernel_sizes):
            self.register_parameter(f"{large}to{small}_matrix", nn.Parameter(torch.eye(small * small)))

    def forward(self, weight: Tensor, kernel: int) -> Tensor:
        """Depthwise weights (C, 1, K, K) of the largest kernel as (C, 1, kernel, kernel)."""
        for large, small in itertools.pairwise(self.kernel_sizes):
            if large == kernel:
                break
            margin = (large - small) // 2
            centre = weight[:, :, margin : margin + small, margin : margin + small]
            matrix = self.get_parameter(f"{large}to{small}_matrix")
            weight = functional.linear(centre.reshape(-1, small * small), matrix).view(-1, 1, small, small)
        return weight


class ElasticConv(nn.Module):
    """A ``conv`` part: convolution, batch norm if it has one, activation; elastic in resolution only."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            part.in_channels, part.out_channels, part.kernel, part.stride, part.kernel // 2, bias=part.bias
        )
        self.bn = ElasticBatchNorm(part.out_channels) if part.batch_norm else None

    def forward(self, x: Tensor, part: Part) -> Tensor:
        x = self.conv(x)
        return activate(x if self.bn is None else self.bn(x), part.activation)


class _ConvBatchNorm(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, groups=groups, bias=False)
        self.bn = ElasticBatchNorm(out_channels)


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor, squeezed: int) -> Tensor:
        n = x.shape[1]
        gate = x.mean((2, 3), keepdim=True)
        gate = functional.relu(
            functional.conv2d(gate, self.reduce.weight[:squeezed, :n], _leading(self.reduce, squeezed))
        )
        gate = functional.conv2d(gate, self.expand.weight[:n, :squeezed], _leading(self.expand, n))
        return x * functional.hardsigmoid(gate)


def _leading(conv: nn.Conv2d, count: int) -> Tensor | None:
    return None if conv.bias is None else conv.bias[:count]


class ElasticMBConv(nn.Module):
    """An ``mbconv`` part, elastic in kernel size and in middle channels."""

    def __init__(self, part: Part, kernel_sizes: Sequence[int]) -> None:
        super().__init__()
        mid = part.mid_channels
        self.expand = _ConvBatchNorm(part.in_channels, mid) if part.expand else None
        self.depthwise = _ConvBatchNorm(mid, mid, part.kernel, groups=mid)
        self.transform = KernelTransform(kernel_sizes)
        self.se = _SqueezeExcite(mid, part.se_channels) if part.se_channels else None
        self.project = _ConvBatchNorm(mid, part.out_channels)

    def forward(self, x: Tensor, part: Part) -> Tensor:
        mid, kernel = part.mid_channels, part.kernel
        out = x
        if self.expand is not None:
            out = functional.conv2d(out, self.expand.conv.weight[:mid])
            out = activate(self.expand.bn(out), part.activation)
        filters = self.transform(self.depthwise.conv.weight[:mid], kernel)
        out = functional.conv2d(out, filters, None, part.stride, kernel // 2, groups=mid)
        out = activate(self.depthwise.bn(out), part.activation)
        if self.se is not None:
            out = self.se(out, part.se_channels)
        out = self.project.bn(functional.conv2d(out, self.project.conv.weight[:, :mid]))
        result: Tensor = out + x if part.shortcut else out
        return result


class GlobalPool(nn.Module):
    """A ``pool`` part: the mean over the feature map."""

    def forward(self, x: Tensor, part: Part) -> Tensor:
        return x.mean((2, 3), keepdim=True)


class Classifier(nn.Module):
    """A ``linear`` part on a 1x1 feature map."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.linear = nn.Linear(part.in_channels, part.out_channels)

    def forward(self, x: Tensor, part: Part) -> Tensor:
        result: Tensor = self.linear(x.flatten(1))
        return result


def make_layer(part: Part, kernel_sizes: Sequence[int]) -> nn.Module:
    """The elastic layer for a place whose largest part is ``part`` and whose kernels may be ``kernel_sizes``."""
    if part.operator == "conv":
        return ElasticConv(part)
    if part.operator == "mbconv":
        return ElasticMBConv(part, kernel_sizes)
    return GlobalPool() if part.operator == "pool" else Classifier(part)
