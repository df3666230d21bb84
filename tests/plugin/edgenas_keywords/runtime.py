"""A runtime in numpy. Its files are .npz: the weights by name, and the nodes to compute as JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from edgenas.errors import ModelError
from edgenas.runtimes import ModelInterface, Precision, Runtime, SourceModel, TensorSpec
from edgenas_keywords import runtime_numpy

OPERATORS = ("Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm")


class NumpyRuntime(Runtime):
    """The interpreter of ``runtime_numpy``, here and on devices; final."""

    name = "numpy"
    file_format = "npz"
    file_start = b"PK"
    precisions = (Precision("fp32"),)
    package = "numpy"
    version_program = "import numpy; print(numpy.__version__)"
    card_packages = ("edgenas", "edgenas-keywords", "numpy")
    script_import = "from edgenas_keywords import runtime_numpy"
    script_body = """\
session = runtime_numpy.load_session(HERE / "model.npz", {})
logits = runtime_numpy.compute_outputs(session, [preprocess(image)])[0][0]"""

    @property
    def device_module(self) -> Path:
        return Path(runtime_numpy.__file__)

    def make_float_file(self, source: SourceModel) -> bytes:
        from onnx.numpy_helper import to_array

        graph = source.onnx.proto.graph
        nodes = [describe_node(node) for node in graph.node]
        shape = [axis.dim_value or 1 for axis in graph.input[0].type.tensor_type.shape.dim]
        program = {"shape": shape, "classes": graph.output[0].type.tensor_type.shape.dim[1].dim_value, "nodes": nodes}
        arrays: dict[str, Any] = {tensor.name: to_array(tensor) for tensor in graph.initializer}
        file = io.BytesIO()
        np.savez(file, program=np.array(json.dumps(program)), **arrays)
        return file.getvalue()

    def parse_interface(self, model: bytes) -> ModelInterface:
        program, _ = self._load(model)
        entry = TensorSpec("input", tuple(program["shape"]), "float32", "NCHW")
        result = TensorSpec("logits", (program["shape"][0], program["classes"]), "float32", "NC")
        return ModelInterface("fp32", entry, result)

    def run_batches(self, model: bytes, images: np.ndarray) -> np.ndarray:
        return np.asarray(runtime_numpy.compute_outputs(self._load(model), [images])[0])

    def _load(self, model: bytes) -> runtime_numpy.Session:
        try:
            return runtime_numpy.load_session(io.BytesIO(model), {})
        except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile) as error:
            raise ModelError(f"the model is damaged or no .npz file ({error})") from None


def describe_node(node: Any) -> dict[str, Any]:
    """Return an ONNX node as plain data; ModelError for an operator that the interpreter does not have."""
    if node.op_type not in OPERATORS:
        raise ModelError(f"runtime numpy has no {node.op_type}; it has {', '.join(OPERATORS)}")
    numbers = {each.name: each.i for each in node.attribute if each.type == each.INT}
    lists = {each.name: list(each.ints) for each in node.attribute if each.type == each.INTS}
    return {"operator": node.op_type, "inputs": list(node.input), "output": node.output[0], **numbers, **lists}
