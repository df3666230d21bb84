"""An ONNX graph as the TFLite writer needs it: nodes, constants, and the readers of each tensor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import ModelError, UsageError, VerificationError

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]
_CONSTANT_DTYPES = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


@dataclass(frozen=True)
class Node:
    """One operator. A nameless one is named after its output."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class OnnxGraph:
    """A graph with one input (N, C, H, W), where N is -1 if open, and one output; nodes in the order they run."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    input: str
    input_shape: tuple[int, ...]
    output: str

    @cached_property
    def readers(self) -> Mapping[str, Sequence[Node]]:
        """The nodes that read each tensor, by its name."""
        readers = defaultdict(list)
        for node in self.nodes:
            for name in node.inputs:
                readers[name].append(node)
        return dict(readers)

    def only_reader(self, name: str) -> Node | None:
        """Return the node that alone reads a tensor; None if there are several or it is the graph's output."""
        readers = self.readers.get(name, ())
        return readers[0] if len(readers) == 1 and name != self.output else None


def read_onnx_graph(model: onnx.ModelProto) -> OnnxGraph:
    """Read an ONNX model.

    Raises:
        ModelError: when it has not one input and one output, or a weight cannot be read.
        UsageError: when the input is not float32 (N, C, H, W) of fixed size, or a weight is in another file.
        VerificationError: when a weight is not finite.
    """
    graph = model.graph
    constants = {tensor.name: _read_tensor(tensor) for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ModelError(f"the model must have one input and one output, but has {len(inputs)} and {len(graph.output)}")
    nodes = _fold_constants([_read_node(node) for node in graph.node], constants, graph.output[0].name)
    return OnnxGraph(tuple(nodes), constants, inputs[0].name, _input_shape(inputs[0]), graph.output[0].name)


def _read_node(node: onnx.NodeProto) -> Node:
    import onnx

    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    operator = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    output = next(iter(node.output), "")
    return Node(node.name or output, operator, tuple(node.input), output, attributes)


def _read_tensor(tensor: onnx.TensorProto) -> Array:
    import onnx

    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise UsageError(f"the weight {tensor.name!r} is in another file; export the model as one file")
    try:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.HasField("raw_data"):
            values: Array = np.frombuffer(tensor.raw_data, "<f4").reshape(tuple(tensor.dims))
        else:
            values = onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"the weight {tensor.name!r} cannot be read ({error}); export the model again") from None
    if values.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            total = values.sum()
        # The sum is quicker than a look at each number, but may overflow.
        if not np.isfinite(total) and not np.isfinite(values).all():
            raise VerificationError(f"the weight {tensor.name!r} holds NaN or infinity; train or extract it again")
    return values


def _fold_constants(nodes: Sequence[Node], constants: dict[str, Array], output: str) -> list[Node]:
    """Return the nodes that depend on the input; the outputs of the others are added to ``constants``."""
    remaining = []
    for node in nodes:
        values = _constant_output(node, constants)
        if values is None or node.output == output:
            remaining.append(node)
        else:
            constants[node.output] = values
    return remaining


def _constant_output(node: Node, constants: Mapping[str, Array]) -> Array | None:
    """Return the output of a Constant, or of an Identity or Transpose of a constant; else None."""
    if node.operator == "Identity":
        return constants.get(node.inputs[0])
    if node.operator == "Transpose" and node.inputs[0] in constants:
        return constants[node.inputs[0]].transpose(node.attributes.get("perm"))
    if node.operator != "Constant":
        return None
    if "value" in node.attributes:
        return _read_tensor(node.attributes["value"])
    for name, dtype in _CONSTANT_DTYPES.items():
        if name in node.attributes:
            return np.array(node.attributes[name], dtype)
    return None


def _input_shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    import onnx

    tensor = value.type.tensor_type
    sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim]
    if tensor.elem_type != onnx.TensorProto.FLOAT or len(sizes) != 4 or min(sizes[1:]) < 1 or sizes[0] == 0:
        raise UsageError(
            f"the input {value.name!r} must be float32 (N, C, H, W) of fixed size, N may be open, but has shape {sizes}"
        )
    return tuple(sizes)
