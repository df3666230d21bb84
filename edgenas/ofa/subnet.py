"""The stand-alone module of one architecture, in plain PyTorch without elastic layers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from edgenas.ofa.functions import run_graph
from edgenas.space import Architecture, Part
from edgenas.space.layers import BatchNorm, Conv, Layer, Linear


def attach_module(root: nn.Module, name: str, module: nn.Module) -> None:
    """Register ``module`` below ``root`` under a dotted name, with empty modules for the names between."""
    *path, last = name.split(".")
    for step in path:
        if not hasattr(root, step):
            root.add_module(step, nn.Module())
        root = root.get_submodule(step)
    root.add_module(last, module)


class _Block(nn.Module):
    """One part: PyTorch's modules for the layers that have weights, functions for the others."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self._graph = part.graph
        for layer in self._graph.layers:
            if layer.params:
                attach_module(self, layer.name, _make_module(layer))

    def forward(self, x: Tensor) -> Tensor:
        return run_graph(self._graph, x, lambda layer, value: self.get_submodule(layer.name)(value))


def _make_module(layer: Layer) -> nn.Module:
    if isinstance(layer, Conv):
        return nn.Conv2d(
            layer.in_shape[0],
            layer.shape[0],
            layer.kernel,
            layer.stride,
            layer.kernel // 2,
            groups=layer.groups,
            bias=layer.bias,
        )
    if isinstance(layer, BatchNorm):
        return nn.BatchNorm2d(layer.shape[0], eps=layer.eps)
    assert isinstance(layer, Linear)
    return nn.Linear(layer.in_shape[0], layer.shape[0])


class Subnet(nn.Module):
    """The plain PyTorch module of one architecture: inputs (N, C, H, W), logits (N, classes).

    Its tensors are named ``<place>.<tensor>`` as in ``edgenas.space.parts.weight_shapes``.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self._places = tuple(architecture.parts)
        with torch.random.fork_rng(devices=[]):  # torch's layers draw defaults from the global generator
            for name, part in architecture.parts.items():
                attach_module(self, name, _Block(part))

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
