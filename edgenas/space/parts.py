"""Parts of architectures: the base class of all blocks, and the costs that follow from their layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import cached_property
from typing import ClassVar

from edgenas.errors import SpaceError
from edgenas.space.layers import BYTES_PER_FLOAT, GraphBuilder, LayerGraph, Shape, TensorShapes
from edgenas.space.rules import require

_KEY_PREFIXES = {"kernel": "k", "stride": "s", "mid_channels": "mid", "se_channels": "se"}
# Not in a key: its shapes say two of them, and batch norm's epsilon costs no time.
_FIELDS_WITHOUT_WORD = ("in_shape", "out_channels", "bn_eps")
# By field, its words and the value that needs none.
_WORDS = {
    "kernel": (" {0}x{0}", 0),
    "stride": (" /{}", 1),
    "mid_channels": (", {} inside", 0),
    "se_channels": (", SE", 0),
}


@dataclass(frozen=True)
class Part(ABC):
    """One piece of an architecture; abstract.

    A subclass is a block: a frozen dataclass of the sizes that decide its
    computation, and ``build``, which writes its primitive layers. The network,
    its costs, the features and keys of its latency table and the exported graph
    all follow from these two, so that they cannot disagree.

    Args:
        in_shape: Channels, height and width of the input.
    """

    operator: ClassVar[str]  # the block's name in the keys of latency tables
    label: ClassVar[str]  # its name for people

    in_shape: Shape

    @abstractmethod
    def build(self, b: GraphBuilder) -> None:
        """Add the block's layers; its input is value 0."""

    @property
    def in_channels(self) -> int:
        """The channels of the input."""
        return self.in_shape[0]

    @property
    def out_shape(self) -> Shape:
        """Channels, height and width of the output."""
        return self.graph.out_shape

    @cached_property
    def graph(self) -> LayerGraph:
        """The block's primitive layers."""
        builder = GraphBuilder(self.in_shape)
        block = type(self).__name__
        try:
            self.build(builder)
        except SpaceError as error:
            raise SpaceError(f"block {block}, {error}") from error
        require(bool(builder.graph.layers), f"block {block}: build must add at least one layer")
        return builder.graph

    @cached_property
    def key(self) -> str:
        """The part's name in a latency table. Parts of one name cost the same."""
        shapes = f"in{format_shape(self.in_shape)}", f"out{format_shape(self.out_shape)}"
        sizes = (field.name for field in fields(self) if field.name not in _FIELDS_WITHOUT_WORD)
        words = (_key_word(name, getattr(self, name)) for name in sizes)
        return "-".join([self.operator, *shapes, *filter(None, words)])

    @property
    def what(self) -> str:
        """The block in words: its label and those of its kernel, stride, inner channels, squeeze-excite that it has."""
        words = [self.label]
        for name, (text, absent) in _WORDS.items():
            value = getattr(self, name, absent)
            words += [text.format(value)] if value != absent else []
        return "".join(words)


def format_shape(shape: Shape) -> str:
    """Return a shape as height, width and channels, for example ``14x14x96``."""
    channels, height, width = shape
    return f"{height}x{width}x{channels}"


def _key_word(name: str, value: int | float | str) -> str:
    """Return what a field adds to a key; nothing for an absent feature."""
    if name == "batch_norm":
        return "" if value else "plain"
    if isinstance(value, bool):
        return name if value else ""
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
