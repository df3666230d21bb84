"""The model file of a bundle: its input and output, its true precision, and running it in its own runtime."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import MissingExtraError, ModelError
from edgenas.export.formats import ExportFormat
from edgenas.export.parity import run_onnx
from edgenas.export.tflite.interpreter import run_tflite

Floats = npt.NDArray[np.float32]
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
_MAX_BATCH = 1024
_MAX_INPUT_NUMBERS = 2**28  # a gigabyte in float32


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and type of a model's input or output.

    Attributes:
        name: its name in the file.
        shape: its sizes; an open batch is None.
        dtype: numpy's name of its element type.
        layout: ``NCHW`` or ``NHWC`` for images, ``NC`` for logits.
        scale: step between two integers of a quantized tensor, else None.
        zero_point: the integer that stands for 0 in a quantized tensor, else None.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    layout: str
    scale: float | None = None
    zero_point: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {**asdict(self), "shape": list(self.shape)}


@dataclass(frozen=True)
class ModelInterface:
    """The input and output of a model file, and its format and precision by the element types inside it."""

    export_format: ExportFormat
    input: TensorSpec
    output: TensorSpec

    @property
    def batch(self) -> int | None:
        """The number of images of one call; None for any number."""
        return self.input.shape[0]


def run_model(model: bytes, file_format: str, images: Floats) -> Floats:
    """Run a model in onnxruntime or LiteRT on one CPU thread.

    Args:
        model: the model file.
        file_format: ``onnx`` or ``tflite``.
        images: (N, C, H, W), any number for models of any batch.

    Returns:
        Logits (N, classes).

    Raises:
        ModelError: as ``run_onnx`` and ``run_tflite``, which also raise UsageError and MissingExtraError.
    """
    run = {"onnx": run_onnx, "tflite": run_tflite}[file_format]
    batch = parse_model_interface(model, file_format).batch or 1
    missing = -len(images) % batch
    padded = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
    return run(model, padded)[: len(images)]


def parse_model_interface(model: bytes, file_format: str) -> ModelInterface:
    """Read the input, the output and the precision of a model file.

    Raises:
        ModelError: when the file is damaged, has not one input and one output, or has a larger input than any
            network here: callers allocate it.
    """
    interface = {"onnx": _parse_onnx_interface, "tflite": _parse_tflite_interface}[file_format](model)
    sizes = [1 if size is None else size for size in interface.input.shape]
    if min(sizes, default=0) < 1 or sizes[0] > _MAX_BATCH or math.prod(sizes) > _MAX_INPUT_NUMBERS:
        raise ModelError(
            f"the model's input must be of 1 to {_MAX_BATCH} images and at most {_MAX_INPUT_NUMBERS} numbers,"
            f" but has shape {interface.input.shape}"
        )
    return interface


def _parse_onnx_interface(model: bytes) -> ModelInterface:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load_model_from_string(model)
    except (DecodeError, ValueError):
        raise ModelError("the model is damaged or no ONNX file") from None
    graph = proto.graph
    nodes = [*graph.node, *(node for function in proto.functions for node in function.node)]
    if any(map(onnx.external_data_helper.uses_external_data, _iter_stored_tensors(graph.initializer, nodes))):
        raise ModelError("the model keeps weights in another file")
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ModelError(f"the model must have one input and one output, but has {len(inputs)}, {len(graph.output)}")
    types = {tensor.data_type for tensor in graph.initializer}
    precision = "fp16" if onnx.TensorProto.FLOAT16 in types else "fp32"
    if any(node.op_type in _CONVERSIONS for node in graph.node):
        precision = "int8"
    return ModelInterface(
        ExportFormat("onnx", precision), _onnx_tensor_spec(inputs[0], "NCHW"), _onnx_tensor_spec(graph.output[0], "NC")
    )


def _iter_stored_tensors(initializers: Iterable[Any], nodes: Iterable[Any]) -> Iterator[Any]:
    """Yield every tensor that a graph stores, also in attributes and in their graphs."""
    yield from initializers
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for graph in (attribute.g, *attribute.graphs):
            yield from _iter_stored_tensors(graph.initializer, graph.node)


def _onnx_tensor_spec(value: Any, layout: str) -> TensorSpec:
    import onnx

    tensor = value.type.tensor_type
    shape = tuple(int(size.dim_value) or None for size in tensor.shape.dim)
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    except (KeyError, ValueError):  # an unknown type, or no tensor
        raise ModelError(f"the model's {value.name!r} must be a tensor of numbers") from None
    return TensorSpec(value.name, shape, str(dtype), layout)


def _parse_tflite_interface(model: bytes) -> ModelInterface:
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise MissingExtraError(
            f"TFLite files need LiteRT, which cannot be imported ({error}); pip install 'edgenas[litert]'"
        ) from None
    try:
        file = schema.Model.GetRootAs(model, 0)
        graph = file.Subgraphs(0)
        if graph.InputsLength() != 1 or graph.OutputsLength() != 1:
            raise ModelError("the model must have one input and one output")
        return ModelInterface(
            ExportFormat("tflite", _tflite_precision(file, graph, schema.TensorType)),
            _tflite_tensor_spec(graph.Tensors(graph.Inputs(0))),
            _tflite_tensor_spec(graph.Tensors(graph.Outputs(0))),
        )
    except (struct.error, AttributeError, LookupError, TypeError, ValueError, OverflowError, MemoryError):
        raise ModelError("the model is damaged or no TFLite file") from None


def _tflite_precision(file: Any, graph: Any, types: Any) -> str:
    """Return int8 if an activation holds integers, dynamic if only weights do, fp16 if weights are halves."""
    activations: set[int] = set()
    weights: set[int] = set()
    for tensor in map(graph.Tensors, range(graph.TensorsLength())):
        buffer = file.Buffers(tensor.Buffer())
        (weights if buffer.DataLength() or buffer.Size() > 1 else activations).add(tensor.Type())
    if types.INT8 in activations:
        return "int8"
    if types.INT8 in weights:
        return "dynamic"
    return "fp16" if types.FLOAT16 in weights else "fp32"


def _tflite_tensor_spec(tensor: Any) -> TensorSpec:
    from ai_edge_litert import schema_py_generated as schema

    names = {value: name.lower() for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
    sizes = tensor.ShapeAsNumpy() if tensor.ShapeSignatureIsNone() else tensor.ShapeSignatureAsNumpy()
    shape = tuple(None if size < 0 else int(size) for size in sizes)
    name, dtype, layout = tensor.Name().decode(), names[tensor.Type()], "NHWC" if len(shape) == 4 else "NC"
    quantization = tensor.Quantization()
    if quantization is None or quantization.ScaleLength() != 1:
        return TensorSpec(name, shape, dtype, layout)
    return TensorSpec(name, shape, dtype, layout, float(quantization.Scale(0)), int(quantization.ZeroPoint(0)))
