"""A TFLite graph under construction: the tensors that stand for ONNX tensors, and fused activations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgenas.export.tflite.file import Operator, Options, Tensor
from edgenas.export.tflite.graph import Array, Node, OnnxGraph

Shape = tuple[int, ...]


class NotCoveredError(Exception):
    """A node that cannot be written, with the reason. The writer catches it."""


@dataclass(frozen=True)
class Value:
    """The TFLite tensor that stands for an ONNX tensor.

    Attributes:
        index: index of the TFLite tensor.
        shape: its shape; maps are (N, H, W, C).
        scale: the ONNX tensor is ``scale`` times the TFLite tensor.
        flattened: True if the ONNX tensor is the map as rows (N, C * H * W).
        positive: True if no element can be below 0.
    """

    index: int
    shape: Shape
    scale: float = 1.0
    flattened: bool = False
    positive: bool = False


@dataclass(frozen=True)
class Activation:
    """An activation that an operator applies to its result.

    The ONNX result is ``scale * code(result * gain + shift)``.

    Attributes:
        code: activation function of the schema.
        reader: node after the operator whose work this is, if any.
    """

    code: str = "NONE"
    reader: Node | None = None
    gain: float = 1.0
    shift: float = 0.0
    scale: float = 1.0


NO_ACTIVATION = Activation()


class Converter:
    """The tensors and operators of the file, and the value of each ONNX tensor."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.graph = graph
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []
        self._values: dict[str, Value] = {}
        self._names = {graph.output}  # reserved for the tensor of the output
        self._integers: dict[tuple[object, ...], int] = {}
        batch, channels, height, width = graph.input_shape
        shape = (batch, height, width, channels)
        self.set_value(graph.input, Value(self._add_tensor(Tensor(graph.input, shape)), shape))

    def has_value(self, name: str) -> bool:
        """Return True if an ONNX tensor has been written."""
        return name in self._values

    def set_value(self, name: str, value: Value) -> Value:
        """Set the value of an ONNX tensor and return it."""
        self._values[name] = value
        return value

    def raw_value(self, name: str) -> Value:
        """Return the value of an ONNX tensor, which may be scaled and flattened."""
        if name not in self._values:
            raise NotCoveredError("reads a constant where it should read a map")
        return self._values[name]

    def value(self, name: str) -> Value:
        """Return the value of an ONNX tensor, unscaled: rows in ONNX's order, or a map (N, H, W, C)."""
        value = self._unscaled_value(name)
        if not value.flattened:
            return value
        index, (batch, height, width, channels) = value.index, value.shape
        if height * width > 1 and channels > 1:
            order = self.add_integers([0, 3, 1, 2])
            shape = (batch, channels, height, width)
            index = self.add_operator("TRANSPOSE", f"{name}/channels_first", (index, order), shape, "TransposeOptions")
        rows = (batch, channels * height * width)
        label = self._claim_output_name() if name == self.graph.output else f"{name}/rows"
        index = self.add_operator("RESHAPE", label, (index, self.add_integers(rows)), rows, "ReshapeOptions")
        return self.set_value(name, replace(value, index=index, shape=rows, flattened=False))

    def _unscaled_value(self, name: str) -> Value:
        """Return the value of an ONNX tensor, unscaled but maybe flattened."""
        value = self.raw_value(name)
        if value.scale == 1:
            return value
        factor = self.add_constant(f"{name}/scale", np.array(value.scale, np.float32))
        options = {"FusedActivationFunction": 0}
        index = self.add_operator("MUL", f"{name}/scaled", (value.index, factor), value.shape, "MulOptions", options)
        return self.set_value(name, replace(value, index=index, scale=1.0))

    def map_value(self, name: str) -> Value:
        """Return ``value`` of a map (N, H, W, C)."""
        value = self.value(name)
        if len(value.shape) != 4:
            raise NotCoveredError(f"needs a map (N, C, H, W), but reads rows of shape {value.shape}")
        return value

    def float_constant(self, node: Node, position: int, rank: int) -> Array:
        """Return a node's input that must be a float32 constant of ``rank``."""
        values = self.graph.constants.get(node.inputs[position])
        if values is None or values.ndim != rank or values.dtype != np.float32:
            raise NotCoveredError(f"input {position} must be a float32 constant of rank {rank}")
        return values

    def add_constant(self, name: str, values: Array) -> int:
        """Add a tensor for a constant; each reader has its own, since each may be quantized differently."""
        return self._add_tensor(Tensor(name, values.shape, values))

    def add_integers(self, values: Array | Shape | list[int]) -> int:
        """Return the tensor of int32 values; equal values share one."""
        array = np.asarray(values, np.int32)
        key = (array.shape, *array.flatten().tolist())
        if key not in self._integers:
            self._integers[key] = self.add_constant("integers", array)
        return self._integers[key]

    def convert_node(
        self,
        builtin: str,
        node: Node,
        inputs: tuple[int, ...],
        shape: Shape,
        table: str = "",
        options: Options | None = None,
        activation: Activation = NO_ACTIVATION,
    ) -> Value:
        """Add the operator for a node and the activation after it, and return the value of their output."""
        nodes = [node, *([activation.reader] if activation.reader else [])]
        output = nodes[-1].output
        name = self._claim_output_name() if output == self.graph.output else ";".join(node.name for node in nodes)
        index = self.add_operator(builtin, name, inputs, shape, table, options)
        positive = activation.code in ("RELU", "RELU6")
        return self.set_value(output, Value(index, shape, activation.scale, positive=positive))

    def add_operator(
        self,
        builtin: str,
        name: str,
        inputs: tuple[int, ...],
        shape: Shape,
        table: str = "",
        options: Options | None = None,
    ) -> int:
        """Add an operator and return the tensor of its output."""
        output = self._add_tensor(Tensor(name, shape))
        self.operators.append(Operator(builtin, inputs, output, table, options or {}))
        return output

    def finish_output(self) -> int:
        """Return the tensor of the graph's output, which has its name."""
        name = self.graph.output
        value = self.value(name)
        if self.tensors[value.index].name == name:
            return value.index
        shape = self.add_integers(value.shape)
        return self.add_operator(
            "RESHAPE", self._claim_output_name(), (value.index, shape), value.shape, "ReshapeOptions"
        )

    def _claim_output_name(self) -> str:
        """Return the reserved name of the graph's output, once."""
        self._names.remove(self.graph.output)
        return self.graph.output

    def _add_tensor(self, tensor: Tensor) -> int:
        """Add a tensor, with a number behind its name if that is taken, and return its index."""
        name, number = tensor.name, 1
        while name in self._names:
            number += 1
            name = f"{tensor.name}/{number}"
        self._names.add(name)
        self.tensors.append(replace(tensor, name=name))
        return len(self.tensors) - 1
