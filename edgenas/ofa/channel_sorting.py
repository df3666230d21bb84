"""Sorting of a supernet's inner channels by importance, before training opens smaller widths.

A subnet takes leading channels, so the most important ones come first
(Once-for-All, arXiv 1908.09791, section 3.3). No output changes by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from edgenas.ofa.supernet import Supernet
from edgenas.space import Part
from edgenas.space.layers import BatchNorm, Conv, Flatten, Layer, LayerGraph, Linear


@dataclass
class _ChannelGroup:
    """Channels within a block that must keep one order.

    Attributes:
        makers: The layers whose output channels they are.
        readers: The layers that mix them as inputs.
    """

    makers: list[Layer] = field(default_factory=list)
    readers: list[Layer] = field(default_factory=list)


def sort_channels(supernet: Supernet, open_parts: Mapping[str, Sequence[Part]]) -> None:
    """Sort the inner channels of every block, the most important first, in place.

    Importance is the L1 norm of a channel's column in the last convolution that
    reads it. Channels are sorted within the bands between the widths that are
    open already, because subnets of these widths were trained.

    Args:
        supernet: The supernet.
        open_parts: For each place the parts that were trained so far.
    """
    for name, part in supernet.space.largest.parts.items():
        block = supernet.get_submodule(name)
        for group in _find_channel_groups(part.graph):
            widths = {_width(each.graph, group) for each in open_parts.get(name, ())}
            tensors = dict(block.state_dict(keep_vars=True))
            columns = tensors[f"{group.readers[-1].name}.weight"].detach()
            columns = (
                columns.cpu().contiguous().double()
            )  # equal sums whatever the layout, so resumed training is equal
            importance = columns.abs().sum(dim=[dim for dim in range(columns.dim()) if dim != 1])
            order = _sort_within_bands(importance, sorted(width for width in widths if width is not None))
            _reorder(tensors, group, order.to(tensors[f"{group.readers[-1].name}.weight"].device))


def _find_channel_groups(graph: LayerGraph) -> list[_ChannelGroup]:
    """Return the groups of channels that are neither the block's input nor its output."""
    parents = list(range(len(graph.layers) + 1))

    def find(value: int) -> int:
        while parents[value] != value:
            value = parents[value]
        return value

    for number, layer in enumerate(graph.layers, 1):
        if not _mixes_channels(layer):
            for value in layer.inputs:
                parents[find(value)] = find(number)
    groups: dict[int, _ChannelGroup] = {}
    for number, layer in enumerate(graph.layers, 1):
        if layer.weight_shapes:
            groups.setdefault(find(number), _ChannelGroup()).makers.append(layer)
        if _mixes_channels(layer):
            groups.setdefault(find(layer.inputs[0]), _ChannelGroup()).readers.append(layer)
    outside = {find(0), find(len(graph.layers))}
    # A grouped convolution ties channels by their place, and one flattened map has several inputs a channel.
    fixed = {find(n) for n, each in enumerate(graph.layers, 1) if _ties_places(each) for n in (n, *each.inputs)}
    return [group for root, group in groups.items() if root not in outside | fixed and group.readers]


def _mixes_channels(layer: Layer) -> bool:
    """Return whether each output channel is computed from all input channels."""
    return isinstance(layer, Linear) or (isinstance(layer, Conv) and not _is_depthwise(layer))


def _is_depthwise(layer: Conv) -> bool:
    return layer.groups == layer.in_shape[0] == layer.shape[0]


def _ties_places(layer: Layer) -> bool:
    if isinstance(layer, Flatten):
        return layer.in_shape[1:] != (1, 1)
    return isinstance(layer, Conv) and layer.groups > 1 and not _is_depthwise(layer)


def _width(graph: LayerGraph, group: _ChannelGroup) -> int | None:
    """Return how many of a group's channels a smaller part of the place has; None where it lacks their layers."""
    names = {maker.name for maker in group.makers}
    return next((layer.shape[0] for layer in graph.layers if layer.name in names), None)


def _sort_within_bands(importance: Tensor, widths: Sequence[int]) -> Tensor:
    """Return the order of channels by falling importance within the bands that end at ``widths``."""
    ends = [*(width for width in widths if width < len(importance)), len(importance)]
    starts = [0, *ends[:-1]]
    bands = [
        start + torch.argsort(importance[start:end], descending=True, stable=True)
        for start, end in zip(starts, ends, strict=True)
    ]
    return torch.cat(bands)


def _reorder(tensors: Mapping[str, Tensor], group: _ChannelGroup, order: Tensor) -> None:
    """Give the channels of a group a new order in all tensors that have them."""
    with torch.no_grad():
        for layer in group.makers:
            names = layer.weight_shapes if isinstance(layer, Conv | BatchNorm | Linear) else ()
            for name in names:
                tensors[name].copy_(tensors[name][order])
        for layer in group.readers:
            weight = tensors[f"{layer.name}.weight"]
            weight.copy_(weight[:, order])
