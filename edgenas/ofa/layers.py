"""Elastic blocks: each holds the largest weights and computes with leading slices of them.

The active part is an argument of ``forward``, never state. Submodules are
named as the layers of the part's graph.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgenas.errors import SpaceError
from edgenas.ofa.functions import run_graph
from edgenas.ofa.subnet import attach_module
from edgenas.space import Part
from edgenas.space.layers import BatchNorm, Conv, Layer, Linear

BN_MOMENTUM = 0.1


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
        """Normalise with the leading channels' statistics; in training, update these in place."""
        n = x.shape[1]
        mean, var, weight, bias = (
            _leading(tensor, n) for tensor in (self.running_mean, self.running_var, self.weight, self.bias)
        )
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
        """Return weights (C, I, kernel, kernel) made from those of the largest kernel, (C, I, K, K)."""
        for large, small in itertools.pairwise(self.kernel_sizes):
            if large == kernel:
                break
            margin = (large - small) // 2
            centre = weight[:, :, margin : margin + small, margin : margin + small]
            matrix = self.get_parameter(f"{large}to{small}_matrix")
            weight = functional.linear(centre.reshape(-1, small * small), matrix).view(*weight.shape[:2], small, small)
        return weight


class ElasticBlock(nn.Module):
    """The weights of one place of a supernet, elastic in all that its parts differ in.

    Each tensor has the largest shape that a part needs. A part computes with
    leading slices, and with kernels made by the matrices that its layers name.

    Args:
        parts: The parts that the place may have, the largest first.

    Raises:
        SpaceError: A convolution has several kernel sizes, but names no matrices.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        layers: dict[str, Layer] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        kernel_sizes: dict[str, set[int]] = {}
        for layer in (layer for part in parts for layer in part.graph.layers if layer.params):
            known = layers.setdefault(layer.name, layer)
            for name, shape in layer.weight_shapes.items():
                shapes[name] = tuple(map(max, shapes.get(name, shape), shape))
            if isinstance(layer, Conv) and layer.transform:
                kernel_sizes.setdefault(layer.transform, set()).add(layer.kernel)
            elif isinstance(layer, Conv) and isinstance(known, Conv) and layer.kernel != known.kernel:
                raise SpaceError(
                    f"{layer.name} has kernels of {known.kernel} and {layer.kernel}; name its matrices with transform"
                )
        self._modules_by_layer = {name: _largest_module(layer, shapes) for name, layer in layers.items()}
        self._transforms = {name: KernelTransform(tuple(sizes)) for name, sizes in kernel_sizes.items()}
        for name, layer in layers.items():
            attach_module(self, name, self._modules_by_layer[name])
            if isinstance(layer, Conv) and layer.transform:
                attach_module(self, layer.transform, self._transforms[layer.transform])

    def forward(self, x: Tensor, part: Part) -> Tensor:
        """Return the output of ``part`` for an input (N, C, H, W)."""
        return run_graph(part.graph, x, self._run_layer)

    def part_weights(self, part: Part) -> dict[str, Tensor]:
        """Return the tensors of ``part`` by name. They share memory with those of this block."""
        tensors = self.state_dict()
        weights = {}
        for layer in part.graph.layers:
            for name, shape in layer.weight_shapes.items():
                tensor = tensors[name]
                if isinstance(layer, Conv) and layer.transform and tensor.dim() == 4:
                    with torch.no_grad():
                        tensor = self._transforms[layer.transform](tensor, layer.kernel)
                weights[name] = tensor[tuple(slice(size) for size in shape)]
        return weights

    def _run_layer(self, layer: Layer, x: Tensor) -> Tensor:
        module = self._modules_by_layer[layer.name]
        if isinstance(module, nn.Conv2d) and isinstance(layer, Conv):
            channels = layer.shape[0]
            weight = _leading(_leading(module.weight, channels), layer.in_shape[0] // layer.groups, 1)
            if layer.transform:
                weight = self._transforms[layer.transform](weight, layer.kernel)
            bias = None if module.bias is None else _leading(module.bias, channels)
            return functional.conv2d(x, weight, bias, layer.stride, layer.kernel // 2, 1, layer.groups)
        if isinstance(module, nn.Linear):
            weight = _leading(_leading(module.weight, layer.shape[0]), layer.in_shape[0], 1)
            return functional.linear(x, weight, _leading(module.bias, layer.shape[0]))
        result: Tensor = module(x)
        return result


def _leading(tensor: Tensor, count: int, dim: int = 0) -> Tensor:
    """Return the leading entries; the tensor itself where these are all, because the gradient of a slice is a copy."""
    return tensor if tensor.shape[dim] == count else tensor.narrow(dim, 0, count)


def _largest_module(layer: Layer, shapes: dict[str, tuple[int, ...]]) -> nn.Module:
    """Return the module with a layer's largest tensors. Only the weights of a convolution are used, not its groups."""
    shape = shapes[f"{layer.name}.weight"]
    if isinstance(layer, Conv):
        return nn.Conv2d(shape[1], shape[0], shape[2], bias=layer.bias)
    if isinstance(layer, BatchNorm):
        return ElasticBatchNorm(shape[0], layer.eps)
    assert isinstance(layer, Linear)
    return nn.Linear(shape[1], shape[0])
