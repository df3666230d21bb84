"""ONNX in float16: weights and activations, with a float32 input and output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgenas.errors import ModelError, VerificationError, one_line
from edgenas.export.onnx.session import copy_model

if TYPE_CHECKING:
    import onnx

_SUFFIXES = {np.dtype(np.float16): ".half", np.dtype(np.float32): ".float"}


def to_float16(model: onnx.ModelProto, kept: frozenset[str]) -> bytes:
    """Convert a float32 model to float16.

    Args:
        model: the model, which stays as it is.
        kept: nodes that compute in float32, between casts.

    Raises:
        VerificationError: naming a weight that float16 cannot hold.
        ModelError: for a model that onnx's shape inference refuses.
    """
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelError(f"the model: onnx cannot infer its types ({one_line(error)})") from None
    values = (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    converted = copy_model(model)
    _Converter(converted, floats).convert(kept)
    data: bytes = converted.SerializeToString(deterministic=True)
    return data


class _Converter:
    """A conversion in node order, with a cast where a node needs a float tensor in the other precision.

    ``floats`` are the float32 tensors that the model takes or computes.
    """

    def __init__(self, model: onnx.ModelProto, floats: set[str]) -> None:
        import onnx

        self._graph = model.graph
        self._floats = floats
        self._weights = {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in model.graph.initializer
            if tensor.data_type == onnx.TensorProto.FLOAT
        }
        self._dtypes = {value.name: np.dtype(np.float32) for value in model.graph.input}
        self._added: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []

    def convert(self, kept: frozenset[str]) -> None:
        outputs = [value.name for value in self._graph.output if value.name in self._floats]
        others = [tensor for tensor in self._graph.initializer if tensor.name not in self._weights]
        del self._graph.initializer[:], self._graph.value_info[:]
        self._graph.initializer.extend(others)
        for node in self._graph.node:
            self._convert_node(node, np.dtype(np.float32 if node.name in kept else np.float16), outputs)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)

    def _convert_node(self, node: onnx.NodeProto, dtype: np.dtype[Any], outputs: list[str]) -> None:
        """Append a node that computes in ``dtype``; the graph's outputs stay float32."""
        import onnx

        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(node.input):
            copy.input[index] = self._cast(name, dtype)
        for attribute in copy.attribute:
            if dtype == np.float16 and attribute.t.data_type == onnx.TensorProto.FLOAT:
                values = _to_half(node.name, onnx.numpy_helper.to_array(attribute.t))
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(values, attribute.t.name))
            elif dtype == np.float16 and node.op_type == "Cast" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.FLOAT16
        self._nodes.append(copy)
        for index, name in enumerate(node.output):
            if name in self._floats:
                self._dtypes[name] = dtype
            if name in outputs and dtype == np.float16:
                copy.output[index] = f"{name}.half"
                self._nodes.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], f"{name}.float", to=1))
                self._dtypes[name] = np.dtype(np.float32)

    def _cast(self, name: str, dtype: np.dtype[Any]) -> str:
        """Return the name of a float tensor in ``dtype``, cast if need be; other tensors keep theirs."""
        import onnx

        if name in self._weights:
            return self._add_weight(name, dtype)
        if self._dtypes.get(name, dtype) == dtype:
            return name
        cast = name + _SUFFIXES[dtype]
        if cast not in self._added:
            self._added.add(cast)
            element_type = onnx.helper.np_dtype_to_tensor_dtype(dtype)
            self._nodes.append(onnx.helper.make_node("Cast", [name], [cast], cast, to=int(element_type)))
        return cast

    def _add_weight(self, name: str, dtype: np.dtype[Any]) -> str:
        """Store a weight in ``dtype``, once, and return its name there."""
        import onnx

        stored = name + ("" if dtype == np.float16 else _SUFFIXES[dtype])
        if stored not in self._added:
            self._added.add(stored)
            values = self._weights[name]
            values = _to_half(name, values) if dtype == np.float16 else values
            self._graph.initializer.append(onnx.numpy_helper.from_array(values, stored))
        return stored


def _to_half(name: str, values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        largest, limit = np.abs(values).max(), np.finfo(np.float16).max
        raise VerificationError(f"{name!r} has values up to {largest:.3g}, float16 holds {limit} at most; use float32")
    return halves
