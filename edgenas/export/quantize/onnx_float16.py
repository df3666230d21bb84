"""ONNX in float16: weights and activations, between a float32 input and a float32 output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgenas.errors import ModelError, VerificationError
from edgenas.export.onnx.session import one_line, parse_onnx

if TYPE_CHECKING:
    import onnx

_SUFFIXES = {np.dtype(np.float16): ".half", np.dtype(np.float32): ".float"}


def to_float16(model: bytes, kept: frozenset[str]) -> bytes:
    """The float16 model of a float32 one; the nodes ``kept`` compute in float32, between casts.

    Raises VerificationError for a weight that float16 cannot hold, by name,
    and ModelError for a model that onnx's shape inference refuses.
    """
    import onnx

    parsed = parse_onnx(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(parsed, check_type=True, strict_mode=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelError(f"the model: onnx cannot infer its types ({one_line(error)})") from None
    _Converter(parsed, _floats(inferred)).convert(kept)
    data: bytes = parsed.SerializeToString(deterministic=True)
    return data


def _floats(model: onnx.ModelProto) -> set[str]:
    """The float32 tensors that nodes make or the model takes."""
    infos = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    return {info.name for info in infos if info.type.tensor_type.elem_type == _element_type(np.float32)}


def _element_type(kind: Any) -> int:
    import onnx

    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)))


class _Converter:
    """Goes through the nodes in order, and casts where a float tensor is wanted in the other width."""

    def __init__(self, model: onnx.ModelProto, floats: set[str]) -> None:
        import onnx

        self._graph = model.graph
        self._floats = floats
        self._weights = {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in model.graph.initializer
            if tensor.data_type == onnx.TensorProto.FLOAT
        }
        self._width = {entry.name: np.dtype(np.float32) for entry in model.graph.input}
        self._made: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []

    def convert(self, kept: frozenset[str]) -> None:
        outputs = [entry.name for entry in self._graph.output if entry.name in self._floats]
        others = [tensor for tensor in self._graph.initializer if tensor.name not in self._weights]
        del self._graph.initializer[:], self._graph.value_info[:]
        self._graph.initializer.extend(others)
        for node in self._graph.node:
            self._convert(node, np.dtype(np.float32 if node.name in kept else np.float16), outputs)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)

    def _convert(self, node: onnx.NodeProto, width: np.dtype[Any], outputs: list[str]) -> None:
        """Append a node that computes in ``width``; the graph's own outputs stay float32."""
        import onnx

        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(node.input):
            copy.input[index] = self._as(name, width)
        for attribute in copy.attribute:
            if width == np.float16 and attribute.t.data_type == onnx.TensorProto.FLOAT:
                values = _halved(node.name, onnx.numpy_helper.to_array(attribute.t))
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(values, attribute.t.name))
            elif width == np.float16 and node.op_type == "Cast" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.FLOAT16
        self._nodes.append(copy)
        for index, name in enumerate(node.output):
            if name in self._floats:
                self._width[name] = width
            if name in outputs and width == np.float16:
                copy.output[index] = f"{name}.half"
                self._nodes.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], f"{name}.float", to=1))
                self._width[name] = np.dtype(np.float32)

    def _as(self, name: str, width: np.dtype[Any]) -> str:
        """The name under which a float tensor is there in ``width``; other tensors keep theirs."""
        if name in self._weights:
            return self._weight(name, width)
        if self._width.get(name, width) == width:
            return name
        cast = name + _SUFFIXES[width]
        if cast not in self._made:
            import onnx

            self._made.add(cast)
            self._nodes.append(onnx.helper.make_node("Cast", [name], [cast], cast, to=_element_type(width)))
        return cast

    def _weight(self, name: str, width: np.dtype[Any]) -> str:
        import onnx

        stored = name + ("" if width == np.float16 else _SUFFIXES[width])
        if stored not in self._made:
            self._made.add(stored)
            values = self._weights[name]
            values = _halved(name, values) if width == np.float16 else values
            self._graph.initializer.append(onnx.numpy_helper.from_array(values, stored))
        return stored


def _halved(name: str, values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        halved = values.astype(np.float16)
    if not np.isfinite(halved).all():
        largest, limit = np.abs(values).max(), np.finfo(np.float16).max
        raise VerificationError(f"{name!r} has values up to {largest:.3g}, float16 holds {limit} at most; use float32")
    return halved
