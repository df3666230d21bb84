"""The bottleneck block of ResNet (arXiv 1512.03385) with the shortcut of ResNet-D (1812.01187)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgenas.space.layers import GraphBuilder
from edgenas.space.parts import Part


@dataclass(frozen=True)
class Bottleneck(Part):
    """A 1x1 convolution, one with the kernel and the stride, a 1x1 one, the sum with the input, the activation.

    ``projected`` first gives the input the output's shape, by average pooling and a 1x1 convolution.
    """

    operator: ClassVar[str] = "bottleneck"
    label: ClassVar[str] = "bottleneck"

    out_channels: int
    kernel: int = 3
    stride: int = 1
    activation: str = "relu"
    mid_channels: int = 0
    shortcut: bool = True
    projected: bool = False
    bn_eps: float = 1e-5

    def build(self, b: GraphBuilder) -> None:
        act, eps, mid = self.activation, self.bn_eps, self.mid_channels
        y = b.conv_bn("reduce", 0, mid, activation=act, bn_eps=eps)
        y = b.conv_bn("filter", y, mid, self.kernel, self.stride, activation=act, bn_eps=eps)
        y = b.conv_bn("project", y, self.out_channels, bn_eps=eps)
        shortcut = 0
        if self.projected:
            if self.stride > 1:
                shortcut = b.average_pool("pool", shortcut, self.stride)
            shortcut = b.conv_bn("shortcut", shortcut, self.out_channels, bn_eps=eps)
        b.activation("act", b.add("add", y, shortcut), act)
