"""Sliding windows of convolutions and pooling: ONNX's padding in terms of TFLite's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """The window of a convolution or pooling. Pairs are (height, width).

    Attributes:
        kernel: sizes.
        strides: strides.
        dilations: dilations.
        out: size of the output map.
        same: True if TFLite's SAME puts every window where ONNX does.
        pads: padding (before, after) of each axis to write before VALID windows where not ``same``; it may be 0.
    """

    kernel: Pair
    strides: Pair
    dilations: Pair
    out: Pair
    same: bool
    pads: tuple[Pair, Pair]

    @property
    def needs_padding(self) -> bool:
        """True if the map must be padded by an operator of its own."""
        return not self.same and any(map(any, self.pads))


def read_window(size: Pair, kernel: Sequence[int], attributes: Mapping[str, Any]) -> Window | None:
    """Return the window over a map of ``size`` (height, width) by ONNX's attributes; None if TFLite has none."""
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    pads = list(attributes.get("pads", [0] * 4))
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or len(kernel) != 2 or len(pads) != 4:
        return None
    if min(pads) < 0:
        return None
    axes = [
        _place_axis(size[axis], (kernel[axis] - 1) * dilations[axis] + 1, strides[axis], pads[axis::2], attributes)
        for axis in (0, 1)
    ]
    if min(axis.out for axis in axes) < 1:
        return None
    return Window(
        kernel=(kernel[0], kernel[1]),
        strides=(strides[0], strides[1]),
        dilations=(dilations[0], dilations[1]),
        out=(axes[0].out, axes[1].out),
        # Without padding VALID does the same.
        same=all(axis.same for axis in axes) and any(any(axis.pads) for axis in axes),
        pads=(axes[0].pads, axes[1].pads),
    )


@dataclass(frozen=True)
class _Axis:
    out: int
    same: bool
    pads: Pair


def _place_axis(size: int, extent: int, stride: int, pads: Sequence[int], attributes: Mapping[str, Any]) -> _Axis:
    before = pads[0]
    last_start = size + sum(pads) - extent
    out = last_start // stride + 1
    if attributes.get("ceil_mode", 0) and last_start % stride and out * stride < size + before:
        out += 1  # one more window, unless it is in the padding alone
    needed = (out - 1) * stride + extent - size  # padding before and after that the windows reach
    same = out == -(-size // stride) and before == max(needed, 0) // 2
    return _Axis(out, same, (before, max(needed - before, 0)))
