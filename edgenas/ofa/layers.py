"""Elastic layers: each holds the largest weights and computes with leading slices of them.

The active part is an argument of ``forward``, never state. Submodules are
named as in ``edgenas.space.parts.weight_shapes``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgenas.space import Part

BN_MOMENTUM = 0.1


def activate(x: Tensor, name: str) -> Tensor:
    """Apply the activation that a part names."""
    if name == "relu":
        return functional.relu(x, inplace=True)
    if name == "relu6":
        return functional.relu6(x, inplace=True)
    if name == "hswish":
        return functional.hardswish(x)
    return x


def to_channels_last(module: nn.Module) -> None:
    """Store the weights channels last, in place. Convolutions on a CPU take half the time with it."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in torch's stubs


class ElasticBatchNorm(nn.Module):
    """Batch norm over the leading channels, as many as the input has.

    In training the running statistics mix those of the latest subnets. A
    subnet's own are calibrated before it is evaluated (batch_norm.py).
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self._eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        mean, var, weight, bias = self.running_mean[:n], self.running_var[:n], self.weight[:n], self.bias[:n]
        return functional.batch_norm(x, mean, var, weight, bias, self.training, BN_MOMENTUM, self._eps)


class KernelTransform(nn.Module):
    """Small kernels as learned linear maps of the centre of larger ones (Once-for-All, section 3.3).

    Each step to the next smaller size has one matrix, shared by all channels and initially the identity.
    """

    def __init__(self, kernel_sizes: Sequence[int]) -> None:
        super().__init__()
        self.kernel_sizes = tuple(sorted(kernel_sizes, reverse=True))
        for large, small in itertools.pairwise(self.kernel_sizes):
            self.register_parameter(f"{large}to{small}_matrix", nn.Parameter(torch.eye(small * small)))

    def forward(self, weight: Tensor, kernel: int) -> Tensor:
        """Return depthwise weights (C, 1, kernel, kernel) made from those of the largest kernel, (C, 1, K, K)."""
        for large, small in itertools.pairwise(self.kernel_sizes):
            if large == kernel:
                break
            margin = (large - small) // 2
            centre = weight[:, :, margin : margin + small, margin : margin + small]
            matrix = self.get_parameter(f"{large}to{small}_matrix")
            weight = functional.linear(centre.reshape(-1, small * small), matrix).view(-1, 1, small, small)
        return weight


def _leading_weights(conv: nn.Conv2d, in_channels: int, out_channels: int) -> tuple[Tensor, Tensor | None]:
    """Return the leading channels of a convolution's weight and bias."""
    bias = None if conv.bias is None else conv.bias[:out_channels]
    return conv.weight[:out_channels, :in_channels], bias


class ElasticConv(nn.Module):
    """A ``conv`` part: convolution, batch norm if it has one, activation; elastic in its channels."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.conv = nn.Conv2d(part.in_channels, part.out_channels, part.kernel, bias=False)
        self.bn = ElasticBatchNorm(part.out_channels, part.bn_eps) if part.batch_norm else None

    def forward(self, x: Tensor, part: Part) -> Tensor:
        weight, bias = _leading_weights(self.conv, x.shape[1], part.out_channels)
        out = functional.conv2d(x, weight, bias, part.stride, part.kernel // 2)
        out = activate(out if self.bn is None else self.bn(out), part.activation)
        return out + x if part.shortcut else out


class _ConvBatchNorm(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, eps: float, kernel: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, groups=groups, bias=False)
        self.bn = ElasticBatchNorm(out_channels, eps)

    def forward(self, x: Tensor, out_channels: int, stride: int = 1) -> Tensor:
        weight, _ = _leading_weights(self.conv, x.shape[1], out_channels)
        result: Tensor = self.bn(functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2))
        return result


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor, squeezed: int) -> Tensor:
        n = x.shape[1]
        gate = x.mean((2, 3), keepdim=True)
        gate = functional.relu(functional.conv2d(gate, *_leading_weights(self.reduce, n, squeezed)))
        gate = functional.conv2d(gate, *_leading_weights(self.expand, squeezed, n))
        return x * functional.hardsigmoid(gate)


class ElasticMBConv(nn.Module):
    """An ``mbconv`` part, elastic in kernel size and in middle channels."""

    def __init__(self, part: Part, kernel_sizes: Sequence[int]) -> None:
        super().__init__()
        mid, eps = part.mid_channels, part.bn_eps
        self.expand = _ConvBatchNorm(part.in_channels, mid, eps) if part.expand else None
        self.depthwise = _ConvBatchNorm(mid, mid, eps, part.kernel, groups=mid)
        self.transform = KernelTransform(kernel_sizes)
        self.se = _SqueezeExcite(mid, part.se_channels) if part.se_channels else None
        self.project = _ConvBatchNorm(mid, part.out_channels, eps)

    def forward(self, x: Tensor, part: Part) -> Tensor:
        mid, kernel = part.mid_channels, part.kernel
        out = x if self.expand is None else activate(self.expand(x, mid), part.activation)
        filters = self.transform(self.depthwise.conv.weight[:mid], kernel)
        out = functional.conv2d(out, filters, None, part.stride, kernel // 2, groups=mid)
        out = activate(self.depthwise.bn(out), part.activation)
        if self.se is not None:
            out = self.se(out, part.se_channels)
        result: Tensor = self.project(out, part.out_channels)
        return result + x if part.shortcut else result


class ElasticBottleneck(nn.Module):
    """A ``bottleneck`` part, elastic in its incoming, middle and outgoing channels."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        mid, eps = part.mid_channels, part.bn_eps
        self.reduce = _ConvBatchNorm(part.in_channels, mid, eps)
        self.filter = _ConvBatchNorm(mid, mid, eps, part.kernel)
        self.project = _ConvBatchNorm(mid, part.out_channels, eps)
        self.shortcut = _ConvBatchNorm(part.in_channels, part.out_channels, eps) if part.projected else None

    def forward(self, x: Tensor, part: Part) -> Tensor:
        out = activate(self.reduce(x, part.mid_channels), part.activation)
        out = activate(self.filter(out, part.mid_channels, part.stride), part.activation)
        out = self.project(out, part.out_channels)
        if self.shortcut is not None:
            pooled = functional.avg_pool2d(x, part.stride, ceil_mode=True) if part.stride > 1 else x
            x = self.shortcut(pooled, part.out_channels)
        return activate(out + x, part.activation)


class MaxPool(nn.Module):
    """A ``max_pool`` part."""

    def forward(self, x: Tensor, part: Part) -> Tensor:
        return functional.max_pool2d(x, part.kernel, part.stride, part.kernel // 2)


class GlobalPool(nn.Module):
    """A ``pool`` part: the mean over the feature map."""

    def forward(self, x: Tensor, part: Part) -> Tensor:
        return x.mean((2, 3), keepdim=True)


class Classifier(nn.Module):
    """A ``linear`` part on a 1x1 feature map, elastic in its incoming channels."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.linear = nn.Linear(part.in_channels, part.out_channels)

    def forward(self, x: Tensor, part: Part) -> Tensor:
        return functional.linear(x.flatten(1), self.linear.weight[:, : x.shape[1]], self.linear.bias)


_LAYERS: dict[str, Callable[[Part, Sequence[int]], nn.Module]] = {
    "conv": lambda part, kernel_sizes: ElasticConv(part),
    "mbconv": ElasticMBConv,
    "bottleneck": lambda part, kernel_sizes: ElasticBottleneck(part),
    "max_pool": lambda part, kernel_sizes: MaxPool(),
    "pool": lambda part, kernel_sizes: GlobalPool(),
    "linear": lambda part, kernel_sizes: Classifier(part),
}


def make_layer(part: Part, kernel_sizes: Sequence[int]) -> nn.Module:
    """Return the elastic layer of a place.

    Args:
        part: The largest part at the place.
        kernel_sizes: The kernel sizes of all parts at the place.
    """
    return _LAYERS[part.operator](part, kernel_sizes)
