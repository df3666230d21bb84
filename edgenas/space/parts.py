"""Parts of architectures as data, and their weight shapes, parameters, MACs and activation bytes.

A part holds everything that decides the computation and the cost of one piece
of an architecture. The network, its costs, the keys of its latency table and
the exported graph are all made from parts, so that they cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

BYTES_PER_FLOAT = 4


@dataclass(frozen=True)
class Part:
    """One piece of an architecture.

    ``operator`` is one of: ``conv`` (convolution, batch norm, activation),
    ``mbconv`` (inverted residual block: 1x1 expansion, depthwise convolution,
    squeeze-excite, 1x1 projection), ``bottleneck`` (1x1, kernel with stride,
    1x1, sum, activation), ``max_pool``, ``pool`` (global average), ``linear``.

    Sizes are the height and width of square feature maps in pixels.
    ``shortcut`` adds the input to the output. ``projected`` first gives the
    input the output's shape, by average pooling and a 1x1 convolution.
    """

    operator: str
    in_size: int
    in_channels: int
    out_size: int
    out_channels: int
    kernel: int = 1
    stride: int = 1
    activation: str = "none"
    mid_channels: int = 0
    se_channels: int = 0
    expand: bool = False
    shortcut: bool = False
    projected: bool = False
    batch_norm: bool = True
    bias: bool = False
    bn_eps: float = 1e-5

    @cached_property
    def key(self) -> str:
        """The part's name in a latency table. Parts of one name cost the same."""
        words = [
            self.operator,
            f"in{self.in_size}x{self.in_size}x{self.in_channels}",
            f"out{self.out_size}x{self.out_size}x{self.out_channels}",
        ]
        if self.operator in ("conv", "mbconv", "bottleneck", "max_pool"):
            words += [f"k{self.kernel}", f"s{self.stride}", self.activation]
        if self.operator == "conv":
            words += ["plain"] * (not self.batch_norm)
        if self.operator == "mbconv":
            words += [f"mid{self.mid_channels}", f"se{self.se_channels}"]
        if self.operator == "bottleneck":
            words += [f"mid{self.mid_channels}"]
        words += ["expand"] * self.expand + ["shortcut"] * self.shortcut + ["projected"] * self.projected
        return "-".join(words)


def weight_shapes(part: Part) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a part's tensors by name, in PyTorch's layout. A batch norm has four vectors."""
    return _WEIGHTS[part.operator](part)


def params(part: Part) -> int:
    """Return the number of trainable parameters, batch norm not folded: its scale and shift, not its statistics."""
    return sum(
        math.prod(shape)
        for name, shape in weight_shapes(part).items()
        if not name.endswith(("running_mean", "running_var"))
    )


def weight_bytes(part: Part) -> int:
    """Return the bytes of the float32 weights as exported, batch norm folded into a bias."""
    numbers = 0
    for name, shape in weight_shapes(part).items():
        if ".bn." not in f".{name}" or name.endswith("bn.bias"):
            numbers += math.prod(shape)
    return numbers * BYTES_PER_FLOAT


def macs(part: Part) -> int:
    """Return the multiply-accumulates of one inference, without batch norm, activations and pooling."""
    return _MACS[part.operator](part)


def activation_bytes(part: Part) -> int:
    """Return the most bytes of float32 activations alive at once, the part's input and shortcut included.

    An elementwise operator reuses the buffer of an input that is not needed afterwards.
    """
    return _ACTIVATIONS[part.operator](part) * BYTES_PER_FLOAT


def _batch_norm_weights(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{tensor}": (channels,) for tensor in ("weight", "bias", "running_mean", "running_var")}


def _conv_weights(part: Part) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "conv.weight": (part.out_channels, part.in_channels, part.kernel, part.kernel)
    }
    if part.bias:
        shapes["conv.bias"] = (part.out_channels,)
    if part.batch_norm:
        shapes |= _batch_norm_weights("bn", part.out_channels)
    return shapes


def _mbconv_weights(part: Part) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    mid = part.mid_channels
    if part.expand:
        shapes["expand.conv.weight"] = (mid, part.in_channels, 1, 1)
        shapes |= _batch_norm_weights("expand.bn", mid)
    shapes["depthwise.conv.weight"] = (mid, 1, part.kernel, part.kernel)
    shapes |= _batch_norm_weights("depthwise.bn", mid)
    if part.se_channels:
        shapes["se.reduce.weight"] = (part.se_channels, mid, 1, 1)
        shapes["se.reduce.bias"] = (part.se_channels,)
        shapes["se.expand.weight"] = (mid, part.se_channels, 1, 1)
        shapes["se.expand.bias"] = (mid,)
    shapes["project.conv.weight"] = (part.out_channels, mid, 1, 1)
    shapes |= _batch_norm_weights("project.bn", part.out_channels)
    return shapes


def _bottleneck_weights(part: Part) -> dict[str, tuple[int, ...]]:
    convolutions = {
        "reduce": (part.mid_channels, part.in_channels, 1, 1),
        "filter": (part.mid_channels, part.mid_channels, part.kernel, part.kernel),
        "project": (part.out_channels, part.mid_channels, 1, 1),
    }
    if part.projected:
        convolutions["shortcut"] = (part.out_channels, part.in_channels, 1, 1)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in convolutions.items():
        shapes[f"{name}.conv.weight"] = shape
        shapes |= _batch_norm_weights(f"{name}.bn", shape[0])
    return shapes


_WEIGHTS: dict[str, Callable[[Part], dict[str, tuple[int, ...]]]] = {
    "conv": _conv_weights,
    "mbconv": _mbconv_weights,
    "bottleneck": _bottleneck_weights,
    "max_pool": lambda part: {},
    "pool": lambda part: {},
    "linear": lambda part: {
        "linear.weight": (part.out_channels, part.in_channels),
        "linear.bias": (part.out_channels,),
    },
}


def _mbconv_macs(part: Part) -> int:
    mid = part.mid_channels
    expansion = part.in_size**2 * part.in_channels * mid if part.expand else 0
    depthwise = part.out_size**2 * mid * part.kernel**2
    squeeze_excite = 2 * mid * part.se_channels
    projection = part.out_size**2 * mid * part.out_channels
    return expansion + depthwise + squeeze_excite + projection


def _bottleneck_macs(part: Part) -> int:
    before, after, mid = part.in_size**2, part.out_size**2, part.mid_channels
    main = before * part.in_channels * mid + after * mid * (mid * part.kernel**2 + part.out_channels)
    return main + (after * part.in_channels * part.out_channels if part.projected else 0)


_MACS: dict[str, Callable[[Part], int]] = {
    "conv": lambda part: part.out_size**2 * part.out_channels * part.in_channels * part.kernel**2,
    "mbconv": _mbconv_macs,
    "bottleneck": _bottleneck_macs,
    "max_pool": lambda part: 0,
    "pool": lambda part: 0,
    "linear": lambda part: part.in_channels * part.out_channels,
}


def _input_and_output(part: Part) -> int:
    return part.in_size**2 * part.in_channels + part.out_size**2 * part.out_channels


def _mbconv_activations(part: Part) -> int:
    block_input = part.in_size**2 * part.in_channels
    kept = block_input if part.shortcut else 0
    expanded = part.in_size**2 * part.mid_channels
    filtered = part.out_size**2 * part.mid_channels
    projected = part.out_size**2 * part.out_channels
    # Without an expansion the depthwise convolution reads the block's input itself.
    depthwise = expanded + filtered + (kept if part.expand else 0)
    moments = [depthwise, kept + filtered + projected]
    if part.expand:
        moments.append(block_input + expanded)
    if part.se_channels:
        # The gate lives beside the filtered map: pooled and reduced, reduced and expanded.
        gate = part.mid_channels + part.se_channels
        moments.append(kept + filtered + gate)
    return max(moments)


def _bottleneck_activations(part: Part) -> int:
    # The main branch runs first; the input waits for it and then becomes the shortcut.
    before, after = part.in_size**2, part.out_size**2
    entry, out = before * part.in_channels, after * part.out_channels
    reduced, filtered = before * part.mid_channels, after * part.mid_channels
    moments = [entry + reduced + filtered, entry + filtered + out]
    if part.projected:
        pooled = after * part.in_channels
        moments += [entry + 2 * out] if part.stride == 1 else [entry + out + pooled, pooled + 2 * out]
    return max(moments)


_ACTIVATIONS: dict[str, Callable[[Part], int]] = {
    "conv": _input_and_output,
    "mbconv": _mbconv_activations,
    "bottleneck": _bottleneck_activations,
    "max_pool": _input_and_output,
    "pool": _input_and_output,
    "linear": _input_and_output,
}
