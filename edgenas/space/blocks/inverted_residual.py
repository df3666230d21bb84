"""The inverted residual block of MobileNetV2 (arXiv 1801.04381), with squeeze-excite as in MobileNetV3 (1905.02244)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgenas.space.layers import GraphBuilder
from edgenas.space.parts import Part


@dataclass(frozen=True)
class InvertedResidual(Part):
    """A 1x1 expansion, a depthwise convolution, squeeze-excite, a 1x1 projection, the sum with the input.

    Expansion, squeeze-excite and sum are optional.
    """

    operator: ClassVar[str] = "mbconv"
    label: ClassVar[str] = "mbconv"

    out_channels: int
    kernel: int = 3
    stride: int = 1
    activation: str = "relu"
    mid_channels: int = 0
    se_channels: int = 0
    expand: bool = False
    shortcut: bool = False
    bn_eps: float = 1e-5

    def build(self, b: GraphBuilder) -> None:
        y, act, eps = 0, self.activation, self.bn_eps
        if self.expand:
            y = b.conv_bn("expand", y, self.mid_channels, activation=act, bn_eps=eps)
        y = b.depthwise("depthwise", y, self.kernel, self.stride, activation=act, bn_eps=eps, transform="transform")
        if self.se_channels:
            y = b.squeeze_excite("se", y, self.se_channels)
        y = b.conv_bn("project", y, self.out_channels, bn_eps=eps)
        if self.shortcut:
            b.add("add", y, 0)
