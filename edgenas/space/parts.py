"""Parts: an architecture as data.

A part is one piece of an architecture with everything that decides what it
computes and costs. The network, its costs, the keys of its latency table and
the exported graph are all made from parts, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

BYTES_PER_FLOAT = 4


@dataclass(frozen=True)
class Part:
    """One piece of an architecture.

    ``operator`` is ``conv`` (convolution, batch norm, activation), ``mbconv``
    (inverted bottleneck: 1x1 expansion, depthwise, squeeze-excite, 1x1
    projection), ``bottleneck`` (1x1, kernel with stride, 1x1, sum, activation),
    ``max_pool``, ``pool`` (global average) or ``linear``. Sizes are the height
    and width of square feature maps in pixels. ``shortcut`` adds the input to
    the output; ``projected`` brings it to the output's shape before, by average
    pooling and a 1x1 convolution.
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
        """The part's name in a latency table: equal parts cost the same."""
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
    """Names and shapes of a part's tensors, in PyTorch's layout; batch norms as four vectors each."""
    return _WEIGHTS[part.operator](part)


def params(part: Part) -> int:
    """Trainable numbers, before batch norm is folded (its scale and shift count, its statistics do not)."""
    return sum(
        _product(shape)
        for name, shape in weight_shapes(part).items()
        if not name.endswith(("running_mean", "running_var"))
    )


def weight_bytes(part: Part) -> int:
    """Bytes of the weights in float32 as exported, batch norm folded into a bias."""
    numbers = 0
    for name, shape in weight_shapes(part).items():
        if ".bn." not in f".{name}" or name.endswith("bn.bias"):
            numbers += _product(shape)
    return numbers * BYTES_PER_FLOAT


def macs(part: Part) -> int:
    """Multiply-accumulates of one inference; batch norm, activations and pooling are not counted."""
    return _MACS[part.operator](part)


def activation_bytes(part: Part) -> int:
    """Most bytes of float32 activations alive at once while the part runs, its input and shortcut included.

    Elementwise operators take over the buffer of an input that dies there.
    """
    return _ACTIVATIONS[part.operator](part) * BYTES_PER_FLOAT


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


def _batch_norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{tensor}": (channels,) for tensor in ("weight", "bias", "running_mean", "running_var")}


def _conv_weights(part: Part) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "conv.weight": (part.out_channels, part.in_channels, part.kernel, part.kernel)
    }
    if part.bias:
        shapes["conv.bias"] = (part.out_channels,)
    if part.batch_norm:
        shapes |= _batch_norm("bn", part.out_channels)
    return shapes


def _mbconv_weights(part: Part) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    mid = part.mid_channels
    if part.expand:
        shapes["expand.conv.weight"] = (mid, part.in_channels, 1, 1)
        shapes |= _batch_norm("expand.bn", mid)
    shapes["depthwise.conv.weight"] = (mid, 1, part.kernel, part.kernel)
    shapes |= _batch_norm("depthwise.bn", mid)
    if part.se_channels:
        shapes["se.reduce.weight"] = (part.se_channels, mid, 1, 1)
        shapes["se.reduce.bias"] = (part.se_channels,)
        shapes["se.expand.weight"] = (mid, part.se_channels, 1, 1)
        shapes["se.expand.bias"] = (mid,)
    shapes["project.conv.weight"] = (part.out_channels, mid, 1, 1)
    shapes |= _batch_norm("project.bn", part.out_channels)
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
        shapes |= _batch_norm(f"{name}.bn", shape[0])
    return shapes


def _linear_weights(part: Part) -> dict[str, tuple[int, ...]]:
    return {"linear.weight": (part.out_channels, part.in_channels), "linear.bias": (part.out_channels,)}


def _no_weights(part: Part) -> dict[str, tuple[int, ...]]:
    return {}


_WEIGHTS: dict[str, Callable[[Part], dict[str, tuple[int, ...]]]] = {
    "conv": _conv_weights,
    "mbconv": _mbconv_weights,
    "bottleneck": _bottleneck_weights,
    "max_pool": _no_weights,
    "pool": _no_weights,
    "linear": _linear_weights,
}


def _conv_macs(part: Part) -> int:
    return part.out_size**2 * part.out_channels * part.in_channels * part.kernel**2


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
    "conv": _conv_macs,
    "mbconv": _mbconv_macs,
    "bottleneck": _bottleneck_macs,
    "max_pool": lambda part: 0,
    "pool": lambda part: 0,
    "linear": lambda part: part.in_channels * part.out_channels,
}


def _in_and_out(part: Part) -> int:
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
    """The main branch runs first: the input waits for it, then becomes the shortcut."""
    before, after = part.in_size**2, part.out_size**2
    entry, out = before * part.in_channels, after * part.out_channels
    reduced, filtered = before * part.mid_channels, after * part.mid_channels
    moments = [entry + reduced + filtered, entry + filtered + out]
    if part.projected:
        pooled = after * part.in_channels
        moments += [entry + 2 * out] if part.stride == 1 else [entry + out + pooled, pooled + 2 * out]
    return max(moments)


_ACTIVATIONS: dict[str, Callable[[Part], int]] = {
    "conv": _in_and_out,
    "mbconv": _mbconv_activations,
    "bottleneck": _bottleneck_activations,
    "max_pool": _in_and_out,
    "pool": _in_and_out,
    "linear": _in_and_out,
}
