"""Blocks of one layer: convolution, pooling, classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgenas.space.layers import GraphBuilder
from edgenas.space.parts import Part


@dataclass(frozen=True)
class ConvPart(Part):
    """A convolution, batch norm unless there is none, the activation, the sum with the input if it has a shortcut."""

    operator: ClassVar[str] = "conv"
    label: ClassVar[str] = "conv"

    out_channels: int
    kernel: int = 1
    stride: int = 1
    activation: str = "none"
    batch_norm: bool = True
    shortcut: bool = False
    bn_eps: float = 1e-5

    def build(self, b: GraphBuilder) -> None:
        sizes = self.out_channels, self.kernel, self.stride
        if self.batch_norm:
            y = b.conv_bn("", 0, *sizes, activation=self.activation, bn_eps=self.bn_eps)
        else:
            y = b.activation("act", b.conv("conv", 0, *sizes), self.activation)
        if self.shortcut:
            b.add("add", y, 0)


@dataclass(frozen=True)
class MaxPoolPart(Part):
    """Max-pooling."""

    operator: ClassVar[str] = "max_pool"
    label: ClassVar[str] = "max pool"

    kernel: int = 3
    stride: int = 2
    activation: str = "none"

    def build(self, b: GraphBuilder) -> None:
        b.activation("act", b.max_pool("", 0, self.kernel, self.stride), self.activation)


@dataclass(frozen=True)
class GlobalPoolPart(Part):
    """The mean over the feature map."""

    operator: ClassVar[str] = "pool"
    label: ClassVar[str] = "average pool"

    def build(self, b: GraphBuilder) -> None:
        b.global_pool("", 0)


@dataclass(frozen=True)
class LinearPart(Part):
    """A fully connected layer with bias over the flattened feature map."""

    operator: ClassVar[str] = "linear"
    label: ClassVar[str] = "linear"

    out_channels: int

    def build(self, b: GraphBuilder) -> None:
        b.linear("linear", b.flatten("flatten", 0), self.out_channels)
