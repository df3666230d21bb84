"""A TFLite graph as it grows: which tensor holds what an ONNX tensor holds, and what one operator does for two."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgenas.export.tflite.file import Operator, Options, Tensor
from edgenas.export.tflite.graph import Array, Node, OnnxGraph

Shape = tuple[int, ...]


class NotCoveredError(Exception):
    """Why a node cannot be written. It never leaves the writer."""


@dataclass(frozen=True)
class Value:
    """What the TFLite tensor ``index`` holds of an ONNX tensor.

    ``shape`` is the TFLite tensor's: maps are (N, H, W, C). The ONNX tensor is
    ``scale`` times as large. ``flattened`` says that ONNX has the map as rows
    (N, C * H * W). ``positive`` says that nothing in it can be below 0.
    """

    index: int
    shape: Shape
    scale: float = 1.0
    flattened: bool = False
    positive: bool = False


@dataclass(frozen=True)
class Activation:
    """What an operator does to its result at the end, for itself or for the node ``reader`` after it.

    The result times ``gain`` plus ``shift`` goes through the function
    ``code``; ``scale`` times that is what ONNX has.
    """

    code: str = "NONE"
    reader: Node | None = None
    gain: float = 1.0
    shift: float = 0.0
    scale: float = 1.0


NO_ACTIVATION = Activation()


class Converter:
    """The tensors and operators of the file, and where each ONNX tensor is."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.graph = graph
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []
        self._values: dict[str, Value] = {}
        self._names = {graph.output}
        self._integers: dict[tuple[object, ...], int] = {}
        batch, channels, height, width = graph.input_shape
        shape = (batch, height, width, channels)
        self.put(graph.input, Value(self._append(Tensor(graph.input, shape)), shape))

    def knows(self, name: str) -> bool:
        """Whether an ONNX tensor has been written."""
        return name in self._values

    def raw(self, name: str) -> Value:
        """Where an ONNX tensor is, scaled or flattened as it may be, for readers who deal with that."""
        if name not in self._values:
            raise NotCoveredError("reads a constant where it should read a map")
        return self._values[name]

    def unscaled(self, name: str) -> Value:
        """Where an ONNX tensor is, maybe flattened."""
        value = self.raw(name)
        if value.scale == 1:
            return value
        factor = self.constant(f"{name}/scale", np.array(value.scale, np.float32))
        options = {"FusedActivationFunction": 0}
        index = self.append("MUL", f"{name}/scaled", (value.index, factor), value.shape, "MulOptions", options)
        return self.put(name, replace(value, index=index, scale=1.0))

    def value(self, name: str) -> Value:
        """Where an ONNX tensor is; rows in ONNX's order, maps as (N, H, W, C)."""
        value = self.unscaled(name)
        if not value.flattened:
            return value
        index, (batch, height, width, channels) = value.index, value.shape
        if height * width > 1 and channels > 1:
            order = self.integers([0, 3, 1, 2])
            shape = (batch, channels, height, width)
            index = self.append("TRANSPOSE", f"{name}/channels_first", (index, order), shape, "TransposeOptions")
        rows = (batch, channels * height * width)
        label = self._take(name) if name == self.graph.output else f"{name}/rows"
        index = self.append("RESHAPE", label, (index, self.integers(rows)), rows, "ReshapeOptions")
        return self.put(name, replace(value, index=index, shape=rows, flattened=False))

    def map(self, name: str) -> Value:
        """As ``value``, of a map (N, H, W, C)."""
        value = self.value(name)
        if len(value.shape) != 4:
            raise NotCoveredError(f"needs a map (N, C, H, W), but reads rows of shape {value.shape}")
        return value

    def weights(self, node: Node, place: int, rank: int) -> Array:
        """A node's input that must be a constant of ``rank``."""
        values = self.graph.constants.get(node.inputs[place])
        if values is None or values.ndim != rank or values.dtype != np.float32:
            raise NotCoveredError(f"input {place} must be a float32 constant of rank {rank}")
        return values

    def constant(self, name: str, values: Array) -> int:
        """A tensor of its own for a constant: each reader may be quantised differently."""
        return self._append(Tensor(name, values.shape, values))

    def integers(self, values: Array | Shape | list[int]) -> int:
        """A tensor of int32; equal ones are one."""
        array = np.asarray(values, np.int32)
        key = (array.shape, *array.flatten().tolist())
        if key not in self._integers:
            self._integers[key] = self.constant("integers", array)
        return self._integers[key]

    def emit(
        self,
        kind: str,
        node: Node,
        inputs: tuple[int, ...],
        shape: Shape,
        table: str = "",
        options: Options | None = None,
        activation: Activation = NO_ACTIVATION,
    ) -> Value:
        """Append an operator that does a node's work and that of the activation after it; say where the result is."""
        nodes = [node, *([activation.reader] if activation.reader else [])]
        output = nodes[-1].output
        name = self._take(output) if output == self.graph.output else ";".join(node.name for node in nodes)
        index = self.append(kind, name, inputs, shape, table, options)
        positive = activation.code in ("RELU", "RELU6")
        return self.put(output, Value(index, shape, activation.scale, positive=positive))

    def append(
        self,
        kind: str,
        name: str,
        inputs: tuple[int, ...],
        shape: Shape,
        table: str = "",
        options: Options | None = None,
    ) -> int:
        """Append an operator, and return the tensor of its output."""
        output = self._append(Tensor(name, shape))
        self.operators.append(Operator(kind, inputs, output, table, options or {}))
        return output

    def put(self, name: str, value: Value) -> Value:
        """Note where an ONNX tensor is."""
        self._values[name] = value
        return value

    def finish(self) -> int:
        """The output's tensor, which bears the output's name."""
        name = self.graph.output
        value = self.value(name)
        if self.tensors[value.index].name == name:
            return value.index
        shape = self.integers(value.shape)
        return self.append("RESHAPE", self._take(name), (value.index, shape), value.shape, "ReshapeOptions")

    def _take(self, name: str) -> str:
        """The output's name, which was kept free."""
        self._names.remove(name)
        return name

    def _append(self, tensor: Tensor) -> int:
        name, number = tensor.name, 1
        while name in self._names:
            number += 1
            name = f"{tensor.name}/{number}"
        self._names.add(name)
        self.tensors.append(replace(tensor, name=name))
        return len(self.tensors) - 1
