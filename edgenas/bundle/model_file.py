"""The model file of a bundle: what it takes and gives, which kind it really is, and running it in its own runtime."""

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
_QUANTISED = ("QuantizeLinear", "DequantizeLinear")
_MOST_IMAGES = 1024
_MOST_NUMBERS = 2**28  # of an input: a gigabyte in float32


@dataclass(frozen=True)
class TensorSpec:
    """The input or the output of a model. A batch of any size is None; ``scale`` and ``zero_point`` of integers."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    layout: str
    scale: float | None = None
    zero_point: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "shape": list(self.shape)}


@dataclass(frozen=True)
class ModelInterface:
    """What a model file says of itself: its kind by the types in it, its input and its output."""

    export_format: ExportFormat
    input: TensorSpec
    output: TensorSpec

    @property
    def batch(self) -> int | None:
        """How many images it takes at a time; None: any number."""
        return self.input.shape[0]


def run_model(model: bytes, file_format: str, images: Floats) -> Floats:
    """Logits (N, classes) of images (N, C, H, W), any number, by onnxruntime or LiteRT on one thread.

    Raises what ``run_onnx`` and ``run_tflite`` raise.
    """
    run = {"onnx": run_onnx, "tflite": run_tflite}[file_format]
    batch = read_interface(model, file_format).batch or 1
    missing = -len(images) % batch
    padded = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
    return run(model, padded)[: len(images)]


def read_interface(model: bytes, file_format: str) -> ModelInterface:
    """Input, output and kind of a model file.

    Raises ModelError when it is none, has not one of each, or takes more at a
    time than any network here: whoever runs it makes its input.
    """
    interface = {"onnx": _of_onnx, "tflite": _of_tflite}[file_format](model)
    sizes = [1 if size is None else size for size in interface.input.shape]
    if min(sizes, default=0) < 1 or sizes[0] > _MOST_IMAGES or math.prod(sizes) > _MOST_NUMBERS:
        raise ModelError(
            f"the model's input must be of 1 to {_MOST_IMAGES} images and at most {_MOST_NUMBERS} numbers,"
            f" but has shape {interface.input.shape}"
        )
    return interface


def _of_onnx(model: bytes) -> ModelInterface:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load_model_from_string(model)
    except (DecodeError, ValueError):
        raise ModelError("the model is damaged or no ONNX file") from None
    graph = proto.graph
    nodes = [*graph.node, *(node for function in proto.functions for node in function.node)]
    if any(map(onnx.external_data_helper.uses_external_data, _tensors(graph.initializer, nodes))):
        raise ModelError("the model keeps weights in another file")
    stored = {tensor.name for tensor in graph.initializer}
    entries = [entry for entry in graph.input if entry.name not in stored]
    if len(entries) != 1 or len(graph.output) != 1:
        raise ModelError(f"the model must have one input and one output, but has {len(entries)}, {len(graph.output)}")
    types = {tensor.data_type for tensor in graph.initializer}
    precision = "fp16" if onnx.TensorProto.FLOAT16 in types else "fp32"
    if any(node.op_type in _QUANTISED for node in graph.node):
        precision = "int8"
    return ModelInterface(
        ExportFormat("onnx", precision), _onnx_port(entries[0], "NCHW"), _onnx_port(graph.output[0], "NC")
    )


def _tensors(initializers: Iterable[Any], nodes: Iterable[Any]) -> Iterator[Any]:
    """Every tensor that is stored in a graph, also in attributes and the graphs in them."""
    yield from initializers
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for graph in (attribute.g, *attribute.graphs):
            yield from _tensors(graph.initializer, graph.node)


def _onnx_port(value: Any, layout: str) -> TensorSpec:
    import onnx

    tensor = value.type.tensor_type
    shape = tuple(int(size.dim_value) or None for size in tensor.shape.dim)
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    except (KeyError, ValueError):  # a type that there is not, or no tensor
        raise ModelError(f"the model's {value.name!r} must be a tensor of numbers") from None
    return TensorSpec(value.name, shape, str(dtype), layout)


def _of_tflite(model: bytes) -> ModelInterface:
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise MissingExtraError(
            f"TFLite files need LiteRT, which cannot be imported ({error}); pip install 'edgenas[litert]'"
        ) from None
    try:
        graph = schema.Model.GetRootAs(model, 0).Subgraphs(0)
        ports = [(graph.InputsLength(), graph.Inputs), (graph.OutputsLength(), graph.Outputs)]
        if any(count != 1 for count, _ in ports):
            raise ModelError("the model must have one input and one output")
        entry, result = (_tflite_port(graph.Tensors(index(0))) for _, index in ports)
        file = schema.Model.GetRootAs(model, 0)
        return ModelInterface(ExportFormat("tflite", _tflite_precision(file, graph, schema.TensorType)), entry, result)
    except (struct.error, AttributeError, LookupError, TypeError, ValueError, OverflowError, MemoryError):
        raise ModelError("the model is damaged or no TFLite file") from None


def _tflite_precision(file: Any, graph: Any, types: Any) -> str:
    """int8 where a tensor that is computed has integers, dynamic where only stored ones have."""
    computed: set[int] = set()
    stored: set[int] = set()
    for tensor in map(graph.Tensors, range(graph.TensorsLength())):
        buffer = file.Buffers(tensor.Buffer())
        (stored if buffer.DataLength() or buffer.Size() > 1 else computed).add(tensor.Type())
    if types.INT8 in computed:
        return "int8"
    if types.INT8 in stored:
        return "dynamic"
    return "fp16" if types.FLOAT16 in stored else "fp32"


def _tflite_port(tensor: Any) -> TensorSpec:
    from ai_edge_litert import schema_py_generated as schema

    names = {value: name.lower() for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
    sizes = tensor.ShapeAsNumpy() if tensor.ShapeSignatureIsNone() else tensor.ShapeSignatureAsNumpy()
    shape = tuple(None if size < 0 else int(size) for size in sizes)
    layout = "NHWC" if len(shape) == 4 else "NC"
    quantisation = tensor.Quantization()
    if quantisation is None or quantisation.ScaleLength() != 1:
        return TensorSpec(tensor.Name().decode(), shape, names[tensor.Type()], layout)
    scale, zero_point = float(quantisation.Scale(0)), int(quantisation.ZeroPoint(0))
    return TensorSpec(tensor.Name().decode(), shape, names[tensor.Type()], layout, scale, zero_point)
