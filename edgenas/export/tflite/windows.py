"""Windows that slide over a map: how TFLite pads what ONNX pads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A convolution's or pooling's window: sizes, strides, dilations, the map it makes, and its padding.

    ``same`` says that TFLite's SAME puts every window where ONNX does;
    otherwise ``pads`` (before and after, of height and width) has what must be
    padded before windows are put at VALID places, which may be nothing.
    """

    kernel: Pair
    strides: Pair
    dilations: Pair
    out: Pair
    same: bool
    pads: tuple[Pair, Pair]

    @property
    def padded(self) -> bool:
        """Whether the map must be padded beforehand."""
        return not self.same and any(map(any, self.pads))


def window(size: Pair, kernel: Sequence[int], attributes: Mapping[str, Any]) -> Window | None:
    """The window over a map of ``size`` (height, width) by ONNX's attributes; None where TFLite has no such."""
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    pads = list(attributes.get("pads", [0] * 4))
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or len(kernel) != 2 or len(pads) != 4:
        return None
    if min(pads) < 0:
        return None
    axes = [
        _axis(size[axis], (kernel[axis] - 1) * dilations[axis] + 1, strides[axis], pads[axis::2], attributes)
        for axis in (0, 1)
    ]
    if min(axis.out for axis in axes) < 1:
        return None
    return Window(
        kernel=(kernel[0], kernel[1]),
        strides=(strides[0], strides[1]),
        dilations=(dilations[0], dilations[1]),
        out=(axes[0].out, axes[1].out),
        # With nothing to pad, VALID says the same and more plainly.
        same=all(axis.same for axis in axes) and any(any(axis.pads) for axis in axes),
        pads=(axes[0].pads, axes[1].pads),
    )


@dataclass(frozen=True)
class _Axis:
    out: int
    same: bool
    pads: Pair


def _axis(size: int, extent: int, stride: int, pads: Sequence[int], attributes: Mapping[str, Any]) -> _Axis:
    before = pads[0]
    room = size + sum(pads) - extent
    out = room // stride + 1
    if attributes.get("ceil_mode", 0) and room % stride and out * stride < size + before:
        out += 1  # one more window, unless it would lie in the padding alone
    needed = (out - 1) * stride + extent - size  # padding that the windows reach, before and after together
    same = out == -(-size // stride) and before == max(needed, 0) // 2
    return _Axis(out, same, (before, max(needed - before, 0)))
