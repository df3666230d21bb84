"""onnxruntime, which runs ONNX files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas.errors import ModelError, UsageError
from edgenas.runtimes.contract import ModelParts, Precision, Runtime, SourceModel
from edgenas.runtimes.interface import ModelInterface, ModelSignature, TensorSpec, format_tensor

if TYPE_CHECKING:
    from edgenas.export.onnx.session import OnnxFile
    from edgenas.export.quantize.calibration import Calibration
    from edgenas.export.quantize.layer_errors import LayerError
    from edgenas.graph import GraphSummary
    from edgenas.runtimes.contract import Floats

_TENSORRT = "TensorrtExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_FOR_TENSORRT = Precision("int8-tensorrt", True, variant_of="int8", made_for="tensorrt", provider=_TENSORRT)
# Operators that compute with integers, or convert to or from them.
_INTEGER_OPERATORS = re.compile(
    "QuantizeLinear|DequantizeLinear|DynamicQuantize.*|QLinear.*|QGemm|ConvInteger|MatMulInteger.*"
)


class OnnxRuntime(Runtime):
    """onnxruntime; final."""

    name = "onnxruntime"
    file_format = "onnx"
    precisions = (Precision("fp32"), Precision("fp16"), Precision("int8", True), _FOR_TENSORRT)
    package = "onnxruntime"
    provider_packages = {  # noqa: RUF012 - never changed
        _TENSORRT: "onnxruntime-gpu",
        _CUDA: "onnxruntime-gpu",
        "QNNExecutionProvider": "onnxruntime-qnn",
        "OpenVINOExecutionProvider": "onnxruntime-openvino",
    }
    accelerators = {  # noqa: RUF012 - never changed
        _TENSORRT: {"trt_engine_cache_enable": True, "trt_engine_cache_path": "~/.cache/edgenas/tensorrt"},
        _CUDA: {},
    }
    precision_providers = frozenset({_TENSORRT})
    gpu_providers = frozenset({_CUDA, _TENSORRT})
    version_program = "import onnxruntime as it; print(it.__version__, *it.get_available_providers())"
    # Without libonnxruntime.so, a second copy of what is in onnxruntime_pybind11_state.
    needed_files = (
        *("onnxruntime/__init__.py", "onnxruntime/capi/*.py", "onnxruntime/capi/onnxruntime_pybind11_state*.so"),
        *("onnxruntime/capi/libonnxruntime_providers_*.so", "onnxruntime*.dist-info/METADATA"),
    )
    card_packages = ("edgenas", "torch", "onnx", "onnxruntime", "numpy")
    script_import = "import onnxruntime"
    script_body = """\
session = onnxruntime.InferenceSession(str(HERE / "model.onnx"), providers=["CPUExecutionProvider"])
entry = session.get_inputs()[0]
batch = entry.shape[0] if isinstance(entry.shape[0], int) else 1
images = np.repeat(preprocess(image), batch, axis=0)
logits = session.run(None, {entry.name: images})[0][0]"""
    leaves_layers_in_float = True
    checker = " with onnx.checker"

    def load(self, model: bytes) -> OnnxFile:
        from edgenas.export.onnx.session import OnnxFile

        return OnnxFile(model)

    def make_float_file(self, source: SourceModel) -> bytes:
        return source.onnx

    def convert(self, model: bytes, precision: str, calibration: Calibration | None, kept: frozenset[str]) -> bytes:
        from edgenas.export.quantize.onnx_float16 import to_float16
        from edgenas.export.quantize.onnx_int8 import quantize_onnx

        if calibration is None or not self.precisions_by_name[precision].calibrated:
            return to_float16(self.load(model).proto, kept)
        return quantize_onnx(self.load(model).proto, calibration, kept, symmetric=precision == _FOR_TENSORRT.name)

    def quantizable_layers(self, model: bytes) -> dict[str, str]:
        return {node.name: node.name for node in self.load(model).proto.graph.node}

    def float_layers(self, model: bytes) -> tuple[str, ...]:
        from edgenas.export.quantize.onnx_int8 import float_nodes

        return float_nodes(self.load(model))

    def layer_errors(self, reference: bytes, quantized: bytes, images: Floats) -> tuple[LayerError, ...]:
        from edgenas.export.quantize.layer_errors import onnx_layer_errors

        return onnx_layer_errors(self.load(reference).proto, self.load(quantized).proto, images)

    def run_batches(self, model: bytes, images: Floats) -> Floats:
        from edgenas.export.parity import run_session

        return run_session(self.load(model).session, images)

    def check_file(self, model: bytes) -> None:
        from edgenas.export.parity import check_onnx

        check_onnx(model)

    def read_parts(self, path: Path, model: bytes) -> ModelParts:
        import onnx
        from google.protobuf.message import DecodeError

        try:
            proto = onnx.load_model_from_string(model)
        except DecodeError:
            return ModelParts()
        entries = [
            entry
            for tensor in _iter_stored_tensors(proto.graph, _all_nodes(proto))
            if onnx.external_data_helper.uses_external_data(tensor)
            for entry in tensor.external_data
            if entry.key == "location"
        ]
        # A name that is no UTF-8 is bytes: str() makes it the name of no file and no operator.
        locations = {str(entry.value): _file_beside(path, str(entry.value)) for entry in entries}
        stored = {tensor.name for tensor in proto.graph.initializer}
        unranked = tuple(
            str(value.name)
            for value in proto.graph.input
            if value.name not in stored and not value.type.tensor_type.HasField("shape")
        )

        def with_locations(names: Mapping[str, str]) -> bytes:
            for entry in entries:
                entry.value = names.get(entry.value, entry.value)
            return bytes(proto.SerializeToString(deterministic=True))

        return ModelParts(locations, with_locations, unranked)

    def read_precision(self, model: bytes) -> str | None:
        import onnx
        from google.protobuf.message import DecodeError

        try:
            graph = onnx.load_model_from_string(model).graph
        except DecodeError:
            return None
        return _precision(graph) if graph.node else None

    def read_signature(self, model: bytes) -> ModelSignature | None:
        import onnx
        from google.protobuf.message import DecodeError

        try:
            graph = onnx.load_model_from_string(model).graph
        except DecodeError:
            return None
        stored = {tensor.name for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in stored]
        return ModelSignature(tuple(map(_format_value_type, inputs)), tuple(map(_format_value_type, graph.output)))

    def summarise_graph(self, path: Path, shapes: Mapping[str, Sequence[int]]) -> GraphSummary | None:
        from edgenas.graph import summarise_model

        try:
            return summarise_model(path, shapes)
        except ModelError:
            return None

    def find_sources(self, model: bytes, operators: Sequence[str], graph: bytes | None) -> dict[str, tuple[str, ...]]:
        from edgenas.graph.fusion import find_sources

        return {} if graph is None else find_sources(model, graph)

    def parse_interface(self, model: bytes) -> ModelInterface:
        import onnx

        proto = self.load(model).proto
        graph = proto.graph
        if any(map(onnx.external_data_helper.uses_external_data, _iter_stored_tensors(graph, _all_nodes(proto)))):
            raise ModelError("the model keeps weights in another file")
        stored = {tensor.name for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in stored]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise ModelError(
                f"the model must have one input and one output, but has {len(inputs)}, {len(graph.output)}"
            )
        return ModelInterface(_precision(graph), _tensor_spec(inputs[0], "NCHW"), _tensor_spec(graph.output[0], "NC"))


def _precision(graph: Any) -> str:
    """Return int8 for a file that computes in integers, fp16 if weights are halves."""
    import onnx

    if any(_INTEGER_OPERATORS.fullmatch(str(node.op_type)) for node in graph.node):
        return "int8"
    return "fp16" if onnx.TensorProto.FLOAT16 in {tensor.data_type for tensor in graph.initializer} else "fp32"


def _file_beside(model: Path, location: str) -> Path:
    """Return the file that a model names; raise UsageError where it is missing or outside of the model's folder.

    A model that is a link may have it in the folder of the file that the link leads to.
    """
    name = location[:200]
    folders = (model.parent.resolve(), model.resolve().parent)
    try:
        file = (model.parent / location).resolve()
        is_there = file.is_file()
    except (OSError, ValueError, RuntimeError):  # no path: too long, a NUL, links in a circle
        raise UsageError(f"{model}: names {name!r}, which is no file; export the model again") from None
    if not any(map(file.is_relative_to, folders)):
        raise UsageError(f"{model}: names {name!r} outside of its folder; save it with its weights beside it")
    if not is_there:
        raise UsageError(f"{model}: names {name!r}, which is not beside it; copy that file there, too")
    return file


def _all_nodes(proto: Any) -> list[Any]:
    return [*proto.graph.node, *(node for function in proto.functions for node in function.node)]


def _iter_stored_tensors(graph: Any, nodes: Iterable[Any]) -> Iterator[Any]:
    """Yield every tensor that a graph stores, also in attributes and in their graphs."""
    yield from graph.initializer
    attributes = [attribute for node in nodes for attribute in node.attribute]
    sparse = [*graph.sparse_initializer]
    for attribute in attributes:
        yield from (attribute.t, *attribute.tensors)
        sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
        for inner in (attribute.g, *attribute.graphs):
            yield from _iter_stored_tensors(inner, inner.node)
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def _format_value_type(value: Any) -> str:
    import onnx

    tensor = value.type.tensor_type
    if not tensor.elem_type:
        return "no tensor"
    shape = [int(size.dim_value) or None for size in tensor.shape.dim] if tensor.HasField("shape") else None
    return format_tensor(onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), shape)


def _tensor_spec(value: Any, layout: str) -> TensorSpec:
    import onnx

    tensor = value.type.tensor_type
    shape = tuple(int(size.dim_value) or None for size in tensor.shape.dim)
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    except (KeyError, ValueError):  # an unknown type, or no tensor
        raise ModelError(f"the model's {value.name!r} must be a tensor of numbers") from None
    return TensorSpec(value.name, shape, str(dtype), layout)
