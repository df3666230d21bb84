"""An ONNX file as plain values: nodes in file order, and the shapes of tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgenas.errors import ModelError, one_line
from edgenas.files import read_bytes

if TYPE_CHECKING:
    import onnx

_OFFICIAL_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Tensor:
    """The shape of a tensor, with a symbolic batch taken as 1, and the bytes of one of its numbers."""

    shape: tuple[int, ...]
    itemsize: int

    @property
    def size(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of all its elements."""
        return self.size * self.itemsize


@dataclass(frozen=True)
class Node:
    """One operator. Absent optional inputs are ``""``; ``captured`` are tensors that only its subgraphs read."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    captured: tuple[str, ...] = ()


@dataclass(frozen=True)
class Graph:
    """A model. ``tensors`` are those of known shape, ``constants`` those that the file stores."""

    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    constants: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_graph(model: Path | bytes | onnx.ModelProto, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """Read an ONNX file, its bytes, or a parsed model, which is not changed, and infer the shapes of its tensors.

    Args:
        model: the file, its bytes, or what they are parsed to.
        shapes: the shapes of inputs by name. Without one, a symbolic first dimension is taken as 1.

    Raises:
        ModelError: when the file is damaged or has an input with another unknown dimension.
    """
    where = str(model) if isinstance(model, Path) else "the model"
    proto = _parse_onnx(read_bytes(model) if isinstance(model, Path) else model, where)
    stored = {initializer.name for initializer in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in stored]
    for value in inputs:
        if shapes and value.name in shapes and value.type.tensor_type.elem_type:
            _set_shape(value, shapes[value.name])
        _set_batch_to_one(value, where)
    inferred = _infer_shapes(proto, where).graph
    nodes = tuple(_parse_node(node) for node in inferred.node)
    constants = {tensor.name: _initializer_shape_and_size(tensor, where) for tensor in inferred.initializer}
    constants |= {
        node.outputs[0]: _constant_shape_and_size(node, where) for node in nodes if node.operator == "Constant"
    }
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    tensors = {value.name: tensor for value in values if (tensor := _read_value_info(value, where)) is not None}
    graph = Graph(
        nodes,
        {**tensors, **constants},
        constants,
        tuple(value.name for value in inputs),
        tuple(value.name for value in inferred.output),
    )
    _check_tensor_names(graph, where)
    return graph


def _parse_onnx(model: bytes | onnx.ModelProto, where: str) -> onnx.ModelProto:
    """Return a model of its own: the bytes parsed, or a copy of what was parsed."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        if isinstance(model, bytes):
            proto = onnx.load_model_from_string(model)
        else:
            proto = onnx.ModelProto()
            proto.CopyFrom(model)
    except DecodeError as error:
        raise ModelError(f"{where}: is damaged or no ONNX file ({one_line(error)}); export it again") from None
    if not proto.graph.node or not proto.opset_import or not all(node.output for node in proto.graph.node):
        raise ModelError(
            f"{where}: is damaged or no ONNX file (operator set, nodes or outputs are missing); export it again"
        )
    return proto


def _set_shape(value: onnx.ValueInfoProto, shape: Sequence[int]) -> None:
    value.type.tensor_type.ClearField("shape")
    sizes = value.type.tensor_type.shape.dim
    value.type.tensor_type.shape.SetInParent()
    for size in shape:
        sizes.add().dim_value = size


def _set_batch_to_one(value: onnx.ValueInfoProto, where: str) -> None:
    """Set a symbolic first dimension to 1. Raise ModelError for any other unknown dimension."""
    if not value.type.tensor_type.HasField("shape") or not value.type.tensor_type.elem_type:
        raise ModelError(
            f"{where}: input {value.name!r} is no tensor of known type and rank; export it with fixed sizes"
        )
    for index, dimension in enumerate(value.type.tensor_type.shape.dim):
        if dimension.HasField("dim_value") and dimension.dim_value > 0:
            continue
        if index > 0:
            raise ModelError(
                f"{where}: input {value.name!r} has no fixed size in dimension {index}"
                f" ({dimension.dim_param or 'unnamed'}); export it with fixed sizes, only the first may vary"
            )
        dimension.dim_value = 1


def _infer_shapes(proto: onnx.ModelProto, where: str) -> onnx.ModelProto:
    import onnx

    reason = ""
    # A stale shape in the file stops strict inference, but no runtime.
    for strict in (True, False):
        try:
            return onnx.shape_inference.infer_shapes(proto, check_type=strict, strict_mode=strict, data_prop=True)
        except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
            reason = one_line(error)
    raise ModelError(f"{where}: its shapes cannot be inferred ({reason}); export it again")


def _parse_node(proto: onnx.NodeProto) -> Node:
    import onnx

    official = proto.domain in _OFFICIAL_DOMAINS
    operator = proto.op_type if official else f"{proto.domain}.{proto.op_type}"
    return Node(
        proto.name or f"{operator}:{next(iter(proto.output), '')}",
        operator,
        tuple(proto.input),
        tuple(proto.output),
        {part.name: onnx.helper.get_attribute_value(part) for part in proto.attribute if part.type},
        tuple(sorted(set(_iter_captured_names(proto)))),
    )


def _iter_captured_names(proto: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node's subgraphs read, also those of their own tensors, which occur nowhere else."""
    for attribute in proto.attribute:
        for body in (attribute.g, *attribute.graphs):
            yield from (value.name for value in body.output)
            for node in body.node:
                yield from node.input
                yield from _iter_captured_names(node)


def _itemsize(element_type: int, owner: str) -> int:
    import onnx

    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(element_type).itemsize)
    except KeyError:
        raise ModelError(f"{owner} is damaged (unknown element type {element_type}); export it again") from None


def _initializer_shape_and_size(proto: onnx.TensorProto, where: str) -> Tensor:
    tensor = Tensor(tuple(proto.dims), _itemsize(proto.data_type, f"{where}: {proto.name!r}"))
    if proto.HasField("raw_data") and tensor.itemsize > 1 and len(proto.raw_data) != tensor.nbytes:
        raise ModelError(
            f"{where}: is damaged ({proto.name!r} of shape {list(tensor.shape)} needs {tensor.nbytes} bytes,"
            f" but has {len(proto.raw_data)}); export it again"
        )
    return tensor


def _constant_shape_and_size(node: Node, where: str) -> Tensor:
    import onnx

    value, owner = next(iter(node.attributes.values()), 0.0), f"{where}: {node.name!r}"
    if isinstance(value, onnx.TensorProto):
        return Tensor(tuple(value.dims), _itemsize(value.data_type, owner))
    if isinstance(value, onnx.SparseTensorProto):
        return Tensor(tuple(value.dims), _itemsize(value.values.data_type, owner))
    array = np.asarray(value)
    return Tensor(array.shape, 4 if array.dtype.kind == "f" else 8)


def _read_value_info(value: onnx.ValueInfoProto, where: str) -> Tensor | None:
    """Return the tensor that a value is; None when its type or one of its sizes is unknown."""
    tensor = value.type.tensor_type
    if not tensor.elem_type or not tensor.HasField("shape"):
        return None
    if any(not size.HasField("dim_value") or size.dim_value < 0 for size in tensor.shape.dim):
        return None
    shape = tuple(size.dim_value for size in tensor.shape.dim)
    return Tensor(shape, _itemsize(tensor.elem_type, f"{where}: {value.name!r}"))


def _check_tensor_names(graph: Graph, where: str) -> None:
    """Raise ModelError unless every name is UTF-8 (protobuf gives bytes otherwise) and is written before it is read."""
    written = {"", *graph.inputs, *graph.constants}
    for node in graph.nodes:
        for text in (*graph.inputs, node.name, node.operator, *node.inputs, *node.outputs):
            if not isinstance(text, str):
                raise ModelError(f"{where}: is damaged (name {text!r} is no UTF-8); export it again")
        for name in node.inputs:
            if name not in written:
                reads = f"node {node.name!r} reads {name!r}, which nothing before it makes"
                raise ModelError(f"{where}: is damaged ({reads}); export it again")
        written.update(node.outputs)
    for name in graph.outputs:
        if name not in written:
            raise ModelError(f"{where}: is damaged (no node makes the output {name!r}); export it again")
