"""An ONNX graph as the TFLite writer reads it: nodes, constants, and who reads what."""

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
_CONSTANT_KINDS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


@dataclass(frozen=True)
class Node:
    """One operator. Its name is that of its output where the file gives none."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class OnnxGraph:
    """A graph with one input (N, C, H, W), of which N may be -1, and one output; nodes in the order they run."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    input: str
    input_shape: tuple[int, ...]
    output: str

    @cached_property
    def readers(self) -> Mapping[str, Sequence[Node]]:
        """The nodes that read each tensor."""
        readers = defaultdict(list)
        for node in self.nodes:
            for name in node.inputs:
                readers[name].append(node)
        return dict(readers)

    def only_reader(self, name: str) -> Node | None:
        """The node that alone reads a tensor, which is not the graph's output."""
        readers = self.readers.get(name, ())
        return readers[0] if len(readers) == 1 and name != self.output else None


def read_graph(model: bytes) -> OnnxGraph:
    """Read an ONNX file.

    Raises ModelError when it is damaged or has not one float32 input
    (N, C, H, W) of fixed size and one output, and VerificationError when a
    weight is not finite.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load_model_from_string(model)
    except DecodeError:
        raise ModelError("the model is damaged or no ONNX file; export it again") from None
    graph = proto.graph
    constants = {tensor.name: _constant(tensor) for tensor in graph.initializer}
    entries = [value for value in graph.input if value.name not in constants]
    if len(entries) != 1 or len(graph.output) != 1:
        raise ModelError(
            f"the model must have one input and one output, but has {len(entries)} and {len(graph.output)}"
        )
    nodes = _without_constants([_node(node) for node in graph.node], constants, graph.output[0].name)
    return OnnxGraph(tuple(nodes), constants, entries[0].name, _input_shape(entries[0]), graph.output[0].name)


def _node(node: onnx.NodeProto) -> Node:
    import onnx

    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    operator = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    output = next(iter(node.output), "")
    return Node(node.name or output, operator, tuple(node.input), output, attributes)


def _constant(tensor: onnx.TensorProto) -> Array:
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
        _check_finite(tensor.name, values)
    return values


def _check_finite(name: str, values: Array) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.sum()
    # The sum of finite numbers may overflow; only then is each one looked at.
    if not np.isfinite(total) and not np.isfinite(values).all():
        raise VerificationError(f"the weight {name!r} holds NaN or infinity; train or extract it again")


def _without_constants(nodes: Sequence[Node], constants: dict[str, Array], output: str) -> list[Node]:
    """The nodes that depend on the input; what the others compute is put among the constants."""
    rest = []
    for node in nodes:
        values = _folded(node, constants)
        if values is None or node.output == output:
            rest.append(node)
        else:
            constants[node.output] = values
    return rest


def _folded(node: Node, constants: Mapping[str, Array]) -> Array | None:
    if node.operator == "Constant":
        return _constant_node(node)
    if node.operator == "Identity":
        return constants.get(node.inputs[0])
    if node.operator == "Transpose" and node.inputs[0] in constants:
        return constants[node.inputs[0]].transpose(node.attributes.get("perm"))
    return None


def _constant_node(node: Node) -> Array | None:
    if "value" in node.attributes:
        return _constant(node.attributes["value"])
    for name, kind in _CONSTANT_KINDS.items():
        if name in node.attributes:
            return np.array(node.attributes[name], kind)
    return None


def _input_shape(entry: onnx.ValueInfoProto) -> tuple[int, ...]:
    import onnx

    kind = entry.type.tensor_type
    sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim]
    if kind.elem_type != onnx.TensorProto.FLOAT or len(sizes) != 4 or min(sizes[1:]) < 1 or sizes[0] == 0:
        raise UsageError(
            f"the input {entry.name!r} must be float32 (N, C, H, W) of fixed size, N may be open, but has shape {sizes}"
        )
    return tuple(sizes)
