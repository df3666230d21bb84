"""LiteRT, which was TensorFlow Lite and runs its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas.errors import MissingExtraError, ModelError
from edgenas.runtimes.contract import ModelParts, Precision, Runtime, SourceModel
from edgenas.runtimes.interface import ModelInterface, ModelSignature, TensorSpec, format_tensor

if TYPE_CHECKING:
    from edgenas.export.quantize.calibration import Calibration
    from edgenas.export.quantize.layer_errors import LayerError
    from edgenas.export.tflite.layers import TFLiteFile
    from edgenas.runtimes.contract import Floats


class LiteRT(Runtime):
    """LiteRT; final."""

    name = "litert"
    file_format = "tflite"
    precisions = (Precision("fp32"), Precision("fp16"), Precision("dynamic"), Precision("int8", True))
    package = "ai-edge-litert"
    benchmark_program = "benchmark_model"
    version_program = (
        "import importlib.metadata as m; from ai_edge_litert.interpreter import Interpreter; "
        "print(m.version('ai-edge-litert'))"
    )
    needed_files = (
        *("ai_edge_litert/__init__.py", "ai_edge_litert/interpreter.py", "ai_edge_litert/metrics_*.py"),
        *("ai_edge_litert/_pywrap_litert_interpreter_wrapper.so", "ai_edge_litert/libpywrap_litert_common.so"),
        "ai_edge_litert-*.dist-info/METADATA",
    )
    card_packages = ("edgenas", "torch", "onnx", "ai-edge-litert", "ai-edge-quantizer", "numpy")
    script_import = "from ai_edge_litert.interpreter import Interpreter"
    script_body = """\
interpreter = Interpreter(model_path=str(HERE / "model.tflite"))
interpreter.allocate_tensors()
entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
images = np.repeat(preprocess(image), entry["shape"][0], axis=0)
if entry["dtype"] == np.int8:  # images as integers: number = (integer - zero point) * scale
    scale, zero_point = entry["quantization"]
    images = np.clip(np.rint(images / scale) + zero_point, -128, 127).astype(np.int8)
interpreter.set_tensor(entry["index"], images)
interpreter.invoke()
logits = interpreter.get_tensor(result["index"])[0]"""

    def load(self, model: bytes) -> TFLiteFile:
        from edgenas.export.tflite.layers import TFLiteFile

        return TFLiteFile(model)

    def make_float_file(self, source: SourceModel) -> bytes:
        from edgenas.export.tflite.writer import build_tflite

        return build_tflite(source.onnx, labels=source.labels, normalisation=source.normalisation)

    def convert(self, model: bytes, precision: str, calibration: Calibration | None, kept: frozenset[str]) -> bytes:
        from edgenas.export.quantize.tflite import quantize_tflite

        return quantize_tflite(self.load(model), precision, calibration, kept)

    def quantizable_layers(self, model: bytes) -> dict[str, str]:
        return {layer: each.outputs[0] for each in self.load(model).operations for layer in each.layers}

    def float_layers(self, model: bytes) -> tuple[str, ...]:
        from edgenas.export.quantize.tflite import float_operations

        return float_operations(self.load(model))

    def layer_errors(self, reference: bytes, quantized: bytes, images: Floats) -> tuple[LayerError, ...]:
        from edgenas.export.quantize.layer_errors import tflite_layer_errors

        return tflite_layer_errors(self.load(reference), self.load(quantized), images)

    def run_batches(self, model: bytes, images: Floats) -> Floats:
        from edgenas.export.tflite.interpreter import run_interpreter

        return run_interpreter(self.load(model).interpreter, images)

    def has_other_labels(self, model: bytes, labels: Sequence[str]) -> bool:
        from edgenas.export.tflite.metadata import has_other_labels

        return has_other_labels(model, labels)

    def read_parts(self, path: Path, model: bytes) -> ModelParts:
        from edgenas.export.tflite.layers import DAMAGE, shape_of

        try:
            graph = self.load(model).root.Subgraphs(0)
            inputs = [graph.Tensors(graph.Inputs(place)) for place in range(graph.InputsLength())]
            unranked = [one.Name().decode() for one in inputs if not one.HasRank() and not len(shape_of(one))]
        except (*DAMAGE, MissingExtraError):
            return ModelParts()
        return ModelParts(unranked=tuple(unranked))

    def read_precision(self, model: bytes) -> str | None:
        from edgenas.export.tflite.layers import DAMAGE

        try:
            file = self.load(model).root
            return _precision(file, file.Subgraphs(0))
        except (*DAMAGE, MissingExtraError, ModelError):
            return None

    def read_signature(self, model: bytes) -> ModelSignature | None:
        from edgenas.export.tflite.layers import DAMAGE

        try:
            graph = self.load(model).root.Subgraphs(0)
            inputs = [_tensor_spec(graph.Tensors(graph.Inputs(place))) for place in range(graph.InputsLength())]
            outputs = [_tensor_spec(graph.Tensors(graph.Outputs(place))) for place in range(graph.OutputsLength())]
        except (*DAMAGE, MissingExtraError, ModelError):
            return None
        texts = (tuple(format_tensor(one.dtype, one.shape) for one in each) for each in (inputs, outputs))
        return ModelSignature(*texts)

    def find_sources(self, model: bytes, operators: Sequence[str], graph: bytes | None) -> dict[str, tuple[str, ...]]:
        # TensorFlow's converter and ours call the output of fused layers by all their names.
        return {name: tuple(name.split(";")) for name in operators}

    def parse_interface(self, model: bytes) -> ModelInterface:
        from edgenas.export.tflite.layers import DAMAGE

        try:
            file = self.load(model).root
            graph = file.Subgraphs(0)
            if graph.InputsLength() != 1 or graph.OutputsLength() != 1:
                raise ModelError("the model must have one input and one output")
            return ModelInterface(
                _precision(file, graph),
                _tensor_spec(graph.Tensors(graph.Inputs(0))),
                _tensor_spec(graph.Tensors(graph.Outputs(0))),
            )
        except DAMAGE:
            raise ModelError("the model is damaged or no TFLite file") from None


def _precision(file: Any, graph: Any) -> str:
    """Return int8 if an activation holds integers, dynamic if only weights do, fp16 if weights are halves."""
    from edgenas.export.tflite.file import schema

    types = schema().TensorType
    activations: set[int] = set()
    weights: set[int] = set()
    for tensor in map(graph.Tensors, range(graph.TensorsLength())):
        buffer = file.Buffers(tensor.Buffer())
        (weights if buffer.DataLength() or buffer.Size() > 1 else activations).add(tensor.Type())
    if {types.INT8, types.UINT8} & activations:
        return "int8"
    if types.INT8 in weights:
        return "dynamic"
    return "fp16" if types.FLOAT16 in weights else "fp32"


def _tensor_spec(tensor: Any) -> TensorSpec:
    from edgenas.export.tflite.file import schema
    from edgenas.export.tflite.layers import shape_of

    names = {value: name.lower() for name, value in vars(schema().TensorType).items() if not name.startswith("_")}
    shape = tuple(None if size < 0 else size for size in shape_of(tensor))
    name, dtype, layout = tensor.Name().decode(), names[tensor.Type()], "NHWC" if len(shape) == 4 else "NC"
    quantization = tensor.Quantization()
    if quantization is None or quantization.ScaleLength() != 1:
        return TensorSpec(name, shape, dtype, layout)
    return TensorSpec(name, shape, dtype, layout, float(quantization.Scale(0)), int(quantization.ZeroPoint(0)))
