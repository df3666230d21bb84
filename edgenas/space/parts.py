"""Parts of architectures: the base class of all blocks, and the costs that follow from their layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import cached_property
from typing import ClassVar

from edgenas.space.layers import BYTES_PER_FLOAT, GraphBuilder, LayerGraph, Shape, TensorShapes

_KEY_PREFIXES = {"kernel": "k", "stride": "s", "mid_channels": "mid", "se_channels": "se"}


@dataclass(frozen=True)
class Part(ABC):
    """One piece of an architecture; abstract.

    A subclass is a block: a frozen dataclass of the sizes that decide its
    computation, and ``build``, which writes its primitive layers. The network,
    its costs, the keys of its latency table and the exported graph all follow
    from these two, so that they cannot disagree.

    Sizes are the height and width of square feature maps in pixels. A block of
    others overrides ``in_shape`` and ``out_shape``.
    """

    operator: ClassVar[str]  # the block's name in the keys of latency tables
    label: ClassVar[str]  # its name for people

    in_size: int
    in_channels: int
    out_size: int
    out_channels: int

    # What latency features compare. A block has fields of these names where they can differ.
    kernel = 1
    stride = 1
    activation = "none"
    mid_channels = 0
    se_channels = 0
    expand = False
    shortcut = False
    projected = False
    batch_norm = True
    bn_eps = 1e-5

    @abstractmethod
    def build(self, b: GraphBuilder) -> None:
        """Add the block's layers; its input is value 0."""

    @property
    def in_shape(self) -> Shape:
        """Channels, height and width of the input."""
        return (self.in_channels, self.in_size, self.in_size)

    @property
    def out_shape(self) -> Shape:
        """Channels, height and width of the output."""
        return (self.out_channels, self.out_size, self.out_size)

    @cached_property
    def graph(self) -> LayerGraph:
        """The block's primitive layers."""
        builder = GraphBuilder(self.in_shape)
        self.build(builder)
        return builder.graph

    @cached_property
    def key(self) -> str:
        """The part's name in a latency table. Parts of one name cost the same."""
        shapes = f"in{format_shape(self.in_shape)}", f"out{format_shape(self.out_shape)}"
        words = (_key_word(field.name, getattr(self, field.name)) for field in fields(self)[len(fields(Part)) :])
        return "-".join([self.operator, *shapes, *filter(None, words)])

    @property
    def what(self) -> str:
        """The block in words: its label, kernel, stride, inner channels, squeeze-excite."""
        names = {field.name for field in fields(self)}
        words = self.label + (f" {self.kernel}x{self.kernel}" if "kernel" in names else "")
        words += f" /{self.stride}" if self.stride > 1 else ""
        words += f", {self.mid_channels} inside" if self.mid_channels else ""
        return words + (", SE" if self.se_channels else "")


def format_shape(shape: Shape) -> str:
    """Return a shape as height, width and channels, for example ``14x14x96``."""
    channels, height, width = shape
    return f"{height}x{width}x{channels}"


def _key_word(name: str, value: int | float | str) -> str:
    """Return what a field adds to a key; nothing for an absent feature and for numbers that cost no time."""
    if name == "batch_norm":
        return "" if value else "plain"
    if isinstance(value, bool):
        return name if value else ""
    if isinstance(value, float):
        return ""
    return value if isinstance(value, str) else f"{_KEY_PREFIXES.get(name, name)}{value}"


def weight_shapes(part: Part) -> TensorShapes:
    """Return the shapes of a part's tensors by name, in PyTorch's layout. A batch norm has four vectors."""
    return part.graph.weight_shapes


def params(part: Part) -> int:
    """Return the number of trainable parameters, batch norm not folded: its scale and shift, not its statistics."""
    return sum(layer.params for layer in part.graph.layers)


def weight_bytes(part: Part) -> int:
    """Return the bytes of the float32 weights as exported, batch norm folded into a bias."""
    return sum(layer.exported_params for layer in part.graph.layers) * BYTES_PER_FLOAT


def macs(part: Part) -> int:
    """Return the multiply-accumulates of one inference, without batch norm, activations and pooling."""
    return sum(layer.macs for layer in part.graph.layers)


def activation_bytes(part: Part) -> int:
    """Return the most bytes of float32 activations alive at once, the part's input and shortcut included.

    An elementwise operator reuses the buffer of an input that is not needed afterwards.
    """
    return part.graph.peak_values * BYTES_PER_FLOAT
