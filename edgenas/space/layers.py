"""Primitive layers as data, the graph that they make, and the builder that a block writes them with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from edgenas.errors import SpaceError
from edgenas.space.rules import require, strided_size

Shape = tuple[int, int, int]  # channels, height, width
TensorShapes = dict[str, tuple[int, ...]]

BYTES_PER_FLOAT = 4
ACTIVATIONS = ("relu", "relu6", "hswish", "hsigmoid")


@dataclass(frozen=True)
class Layer:
    """One primitive layer; abstract.

    Args:
        name: The name of the layer and its tensors within the block, for example ``expand.conv``. Empty where the
            layer, without weights, is the whole block.
        inputs: The numbers of the values that it reads.
        in_shape: The shape of the first of them.
        shape: The shape of its output.
    """

    elementwise: ClassVar[bool] = False  # may overwrite an input that nobody reads afterwards

    name: str
    inputs: tuple[int, ...]
    in_shape: Shape
    shape: Shape

    @property
    def kind(self) -> str:
        """What runs, for costs: layers of one kind take time alike. Empty for a layer that takes none once exported."""
        return type(self).__name__

    @property
    def weight_shapes(self) -> TensorShapes:
        """The shapes of the layer's tensors by name, in PyTorch's layout."""
        return {}

    @property
    def params(self) -> int:
        """The number of trainable parameters."""
        return sum(map(math.prod, self.weight_shapes.values()))

    @property
    def exported_params(self) -> int:
        """The number of floats in an exported file, where batch norm is folded into a convolution."""
        return self.params

    @property
    def macs(self) -> int:
        """The multiply-accumulates of one inference."""
        return 0


@dataclass(frozen=True)
class Conv(Layer):
    """A convolution padded by half its kernel.

    ``transform`` names the matrices by which a supernet makes small kernels of
    large ones (Once-for-All, section 3.3); without it, all kernels have one size.
    """

    kernel: int
    stride: int = 1
    groups: int = 1
    bias: bool = False
    transform: str = ""

    @property
    def kind(self) -> str:
        kind = "Conv" if self.groups == 1 else "DepthwiseConv" if self.groups == self.in_shape[0] else "GroupedConv"
        on_vector = self.in_shape[1:] == (1, 1)
        return f"{kind} {self.kernel}x{self.kernel}" + (" on a vector" if on_vector else "")

    @property
    def weight_shapes(self) -> TensorShapes:
        channels = self.shape[0]
        kernel = (channels, self.in_shape[0] // self.groups, self.kernel, self.kernel)
        return {f"{self.name}.weight": kernel, **({f"{self.name}.bias": (channels,)} if self.bias else {})}

    @property
    def macs(self) -> int:
        return math.prod(self.shape) * (self.in_shape[0] // self.groups) * self.kernel**2


@dataclass(frozen=True)
class BatchNorm(Layer):
    """A batch norm. It follows a convolution without bias, into which it is folded for export."""

    elementwise: ClassVar[bool] = True

    eps: float

    @property
    def kind(self) -> str:
        return ""

    @property
    def weight_shapes(self) -> TensorShapes:
        channels = self.shape[0]
        return {f"{self.name}.{tensor}": (channels,) for tensor in ("weight", "bias", "running_mean", "running_var")}

    @property
    def params(self) -> int:
        return 2 * self.shape[0]

    @property
    def exported_params(self) -> int:
        return self.shape[0]


@dataclass(frozen=True)
class Activation(Layer):
    """An activation: ``relu``, ``relu6``, ``hswish`` or ``hsigmoid``."""

    elementwise: ClassVar[bool] = True

    function: str

    @property
    def kind(self) -> str:
        return self.function


@dataclass(frozen=True)
class GlobalPool(Layer):
    """The mean over the feature map."""


@dataclass(frozen=True)
class MaxPool(Layer):
    """Max-pooling padded by half its kernel."""

    kernel: int
    stride: int

    @property
    def kind(self) -> str:
        return f"{type(self).__name__} {self.kernel}x{self.kernel}"


@dataclass(frozen=True)
class AveragePool(Layer):
    """Average pooling by non-overlapping windows, those at an odd edge smaller."""

    stride: int


@dataclass(frozen=True)
class Add(Layer):
    """The sum of two values of one shape."""

    elementwise: ClassVar[bool] = True


@dataclass(frozen=True)
class Multiply(Layer):
    """The product of a value and a scale for each of its channels."""

    elementwise: ClassVar[bool] = True


@dataclass(frozen=True)
class Flatten(Layer):
    """A feature map as one vector."""

    elementwise: ClassVar[bool] = True

    @property
    def kind(self) -> str:
        return ""


@dataclass(frozen=True)
class Linear(Layer):
    """A fully connected layer with bias."""

    @property
    def weight_shapes(self) -> TensorShapes:
        return {f"{self.name}.weight": (self.shape[0], self.in_shape[0]), f"{self.name}.bias": (self.shape[0],)}

    @property
    def macs(self) -> int:
        return self.in_shape[0] * self.shape[0]


@dataclass(frozen=True)
class LayerGraph:
    """The layers of a block in the order in which they run. Value 0 is the input; layer i, from 0, makes value i + 1.

    Args:
        in_shape: The shape of the input.
        layers: The layers. The last one's output is the block's.
    """

    in_shape: Shape
    layers: tuple[Layer, ...]

    @property
    def out_shape(self) -> Shape:
        """The shape of the output."""
        return self.layers[-1].shape

    @property
    def weight_shapes(self) -> TensorShapes:
        """The shapes of all tensors by name, in PyTorch's layout, in the order of the layers."""
        return {name: shape for layer in self.layers for name, shape in layer.weight_shapes.items()}

    @property
    def branch_norms(self) -> tuple[BatchNorm, ...]:
        """The batch norms at the end of residual branches, whose output is added to the shortcut."""
        branches = {layer.inputs[0] for layer in self.layers if isinstance(layer, Add)}
        makers = ((number, layer) for number, layer in enumerate(self.layers, 1) if isinstance(layer, BatchNorm))
        return tuple(layer for number, layer in makers if number in branches)

    @cached_property
    def last_uses(self) -> tuple[tuple[int, ...], ...]:
        """For each layer the values that no later layer reads."""
        last = {value: number for number, layer in enumerate(self.layers) for value in layer.inputs}
        return tuple(
            tuple(value for value in dict.fromkeys(layer.inputs) if last[value] == number)
            for number, layer in enumerate(self.layers)
        )

    @property
    def peak_values(self) -> int:
        """The most activation values alive at once.

        An elementwise layer reuses the buffer of an input of its own size that nobody reads afterwards.
        """
        sizes = [math.prod(self.in_shape), *(math.prod(layer.shape) for layer in self.layers)]
        alive = peak = sizes[0]
        for number, layer in enumerate(self.layers):
            size, dying = sizes[number + 1], [sizes[value] for value in self.last_uses[number]]
            reused = size if layer.elementwise and size in dying else 0
            peak = max(peak, alive + size - reused)
            alive += size - sum(dying)
        return peak


class GraphBuilder:
    """Records the layers of a block as it is written. Each method adds layers and returns the number of their output.

    Args:
        in_shape: The shape of the block's input, which is value 0.
    """

    def __init__(self, in_shape: Shape) -> None:
        self._shapes = [in_shape]
        self._layers: list[Layer] = []

    @property
    def graph(self) -> LayerGraph:
        """The layers so far."""
        return LayerGraph(self._shapes[0], tuple(self._layers))

    def channels(self, value: int) -> int:
        """Return the channels of a value."""
        return self._shapes[value][0]

    def conv(
        self,
        name: str,
        value: int,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        bias: bool = False,
        transform: str = "",
    ) -> int:
        """Add a convolution named ``name``."""
        entry = self.channels(value)
        _require_whole(name, (channels,))
        fits = groups > 0 and entry % groups == channels % groups == 0
        require(fits, f"layer {name!r}: groups ({groups}) must divide the channels, {entry} and {channels}")
        require(kernel % 2 == 1, f"layer {name!r}: kernels must be odd, but got {kernel}")
        shape = (channels, *self._strided(value, stride))
        return self._add(Conv(name, (value,), self._shapes[value], shape, kernel, stride, groups, bias, transform))

    def conv_bn(
        self,
        name: str,
        value: int,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        bn_eps: float,
        activation: str = "none",
        groups: int = 1,
        transform: str = "",
    ) -> int:
        """Add ``{name}.conv``, ``{name}.bn`` and, unless there is no activation, ``{name}.act``."""
        prefix = f"{name}." if name else ""
        value = self.conv(f"{prefix}conv", value, channels, kernel, stride, groups=groups, transform=transform)
        shape = self._shapes[value]
        value = self._add(BatchNorm(f"{prefix}bn", (value,), shape, shape, bn_eps))
        return self.activation(f"{prefix}act", value, activation)

    def depthwise(
        self,
        name: str,
        value: int,
        kernel: int,
        stride: int = 1,
        *,
        bn_eps: float,
        activation: str = "none",
        transform: str = "",
    ) -> int:
        """Add a convolution of each channel by itself with batch norm and activation, named as by ``conv_bn``."""
        channels = self.channels(value)
        return self.conv_bn(
            name,
            value,
            channels,
            kernel,
            stride,
            bn_eps=bn_eps,
            activation=activation,
            groups=channels,
            transform=transform,
        )

    def activation(self, name: str, value: int, function: str) -> int:
        """Add an activation; nothing for ``none``."""
        if function == "none":
            return value
        known = ", ".join(ACTIVATIONS)
        require(function in ACTIVATIONS, f"layer {name!r}: unknown activation {function!r}; known: {known}")
        shape = self._shapes[value]
        return self._add(Activation(name, (value,), shape, shape, function))

    def squeeze_excite(self, name: str, value: int, channels: int) -> int:
        """Scale each channel by a gate computed from the means of all channels (arXiv 1709.01507)."""
        gate = self.global_pool(f"{name}.pool", value)
        gate = self.activation(f"{name}.relu", self.conv(f"{name}.reduce", gate, channels, bias=True), "relu")
        gate = self.conv(f"{name}.expand", gate, self.channels(value), bias=True)
        gate = self.activation(f"{name}.gate", gate, "hsigmoid")
        shape = self._shapes[value]
        return self._add(Multiply(f"{name}.mul", (value, gate), shape, shape))

    def add(self, name: str, branch: int, shortcut: int) -> int:
        """Add the sum of a residual branch and its shortcut."""
        shape, other = self._shapes[branch], self._shapes[shortcut]
        require(shape == other, f"layer {name!r}: a sum needs values of one shape, but got {shape} and {other}")
        return self._add(Add(name, (branch, shortcut), shape, shape))

    def global_pool(self, name: str, value: int) -> int:
        """Add the mean over the feature map."""
        return self._add(GlobalPool(name, (value,), self._shapes[value], (self.channels(value), 1, 1)))

    def max_pool(self, name: str, value: int, kernel: int, stride: int) -> int:
        """Add max-pooling."""
        shape = (self.channels(value), *self._strided(value, stride))
        return self._add(MaxPool(name, (value,), self._shapes[value], shape, kernel, stride))

    def average_pool(self, name: str, value: int, stride: int) -> int:
        """Add the means of non-overlapping windows."""
        shape = (self.channels(value), *self._strided(value, stride))
        return self._add(AveragePool(name, (value,), self._shapes[value], shape, stride))

    def flatten(self, name: str, value: int) -> int:
        """Add the feature map as one vector."""
        return self._add(Flatten(name, (value,), self._shapes[value], (math.prod(self._shapes[value]), 1, 1)))

    def linear(self, name: str, value: int, channels: int) -> int:
        """Add a fully connected layer."""
        return self._add(Linear(name, (value,), self._shapes[value], (channels, 1, 1)))

    def _add(self, layer: Layer) -> int:
        _require_whole(layer.name, layer.shape)
        self._layers.append(layer)
        self._shapes.append(layer.shape)
        return len(self._layers)

    def _strided(self, value: int, stride: int) -> tuple[int, int]:
        _, height, width = self._shapes[value]
        return strided_size(height, stride), strided_size(width, stride)


def _require_whole(name: str, sizes: tuple[int, ...]) -> None:
    for size in sizes:
        if not isinstance(size, int) or size <= 0:
            raise SpaceError(f"layer {name!r}: sizes must be integers above 0, but are {sizes}")
