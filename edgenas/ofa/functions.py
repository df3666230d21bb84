"""The layers of a block as functions of PyTorch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from edgenas.space.layers import (
    Activation,
    Add,
    AveragePool,
    Flatten,
    GlobalPool,
    Layer,
    LayerGraph,
    MaxPool,
    Multiply,
)


def run_graph(graph: LayerGraph, x: Tensor, run_weighted: Callable[[Layer, Tensor], Tensor]) -> Tensor:
    """Return the output of a block's layers for an input.

    Args:
        graph: The layers.
        x: The input (N, C, H, W), which stays as it is.
        run_weighted: Returns the output of a layer that has weights.
    """
    values: dict[int, Tensor] = {0: x}
    for number, (layer, dying) in enumerate(zip(graph.layers, graph.last_uses, strict=True)):
        inputs = [values[value] for value in layer.inputs]
        for value in dying:
            del values[value]
        function = _FUNCTIONS.get(type(layer))
        if function is None:
            values[number + 1] = run_weighted(layer, inputs[0])
        else:
            # Overwrite only the output of the layer right before, unless that is a view: no other layer has read it.
            may_overwrite = number > 0 and number in dying and not isinstance(graph.layers[number - 1], Flatten)
            values[number + 1] = function(layer, inputs, may_overwrite)
    return values[len(graph.layers)]


def _activate(layer: Layer, inputs: list[Tensor], inplace: bool) -> Tensor:
    assert isinstance(layer, Activation)
    if layer.function == "relu":
        return functional.relu(inputs[0], inplace)
    if layer.function == "relu6":
        return functional.relu6(inputs[0], inplace)
    return functional.hardswish(inputs[0]) if layer.function == "hswish" else functional.hardsigmoid(inputs[0])


def _max_pool(layer: Layer, inputs: list[Tensor], inplace: bool) -> Tensor:
    assert isinstance(layer, MaxPool)
    return functional.max_pool2d(inputs[0], layer.kernel, layer.stride, layer.kernel // 2)


def _average_pool(layer: Layer, inputs: list[Tensor], inplace: bool) -> Tensor:
    assert isinstance(layer, AveragePool)
    return functional.avg_pool2d(inputs[0], layer.stride, ceil_mode=True)


_FUNCTIONS: dict[type[Layer], Callable[[Layer, list[Tensor], bool], Tensor]] = {
    Activation: _activate,
    Add: lambda layer, inputs, inplace: inputs[0] + inputs[1],
    AveragePool: _average_pool,
    Flatten: lambda layer, inputs, inplace: inputs[0].flatten(1),
    GlobalPool: lambda layer, inputs, inplace: inputs[0].mean((2, 3), keepdim=True),
    MaxPool: _max_pool,
    Multiply: lambda layer, inputs, inplace: inputs[0] * inputs[1],
}
