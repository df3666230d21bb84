"""A TFLite file in memory: operators with the names of their layers, weights, and values of tensors."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import ModelError
from edgenas.export.model_file import ModelFile
from edgenas.export.onnx.session import split_batches
from edgenas.export.tflite.file import schema
from edgenas.export.tflite.interpreter import (
    dequantize_values,
    open_interpreter,
    quantize_values,
    without_standard_error,
)

Floats = npt.NDArray[np.float32]
# What reading a damaged flatbuffer raises.
DAMAGE = (struct.error, AttributeError, LookupError, TypeError, ValueError, OverflowError, MemoryError)
_WEIGHT_SUFFIX = ".weight"
_PART_SUFFIX = re.compile(r"(/(rows\d*|sum\d+|pad|scaled|gained|channels_first|shifted|sixfold))+$")


@dataclass(frozen=True)
class Operation:
    """An operator of a TFLite file.

    Attributes:
        builtin: name of the builtin operator, such as ``CONV_2D``.
        inputs: names of the activations that it reads.
        outputs: names of the tensors that it writes.
        layers: names of the nodes whose work it does.
        is_float: True if one of its tensors, weights included, holds floats.
    """

    builtin: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[str, ...]
    is_float: bool


class TFLiteFile(ModelFile):
    """A TFLite file; final."""

    @cached_property
    def root(self) -> Any:
        """The Model table of the schema. Damage shows where it is read, as one of ``DAMAGE``."""
        return schema().Model.GetRootAs(self.plain, 0)

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        """The operators, in order. Raises ModelError when it is no TFLite file."""
        try:
            return tuple(_read_operations(self.root))
        except DAMAGE:
            raise ModelError("the model is damaged or no TFLite file; export it again") from None

    @cached_property
    def interpreter(self) -> Any:
        """The interpreter that computes its logits. Raises what ``open_interpreter`` raises."""
        return open_interpreter(self.plain)


def _read_operations(root: Any) -> Iterator[Operation]:
    types = schema()
    graph = root.Subgraphs(0)
    builtins = {code: name for name, code in vars(types.BuiltinOperator).items() if isinstance(code, int)}
    tensors = [graph.Tensors(index) for index in range(graph.TensorsLength())]
    names = [tensor.Name().decode() for tensor in tensors]
    floats = {types.TensorType.FLOAT32, types.TensorType.FLOAT16}
    activations = set(graph.InputsAsNumpy())
    graph_outputs = set(graph.OutputsAsNumpy())
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        code = root.OperatorCodes(operator.OpcodeIndex())
        inputs = [number for number in operator.InputsAsNumpy() if number >= 0]
        outputs = list(operator.OutputsAsNumpy())
        weights = [
            names[number].removesuffix(_WEIGHT_SUFFIX) for number in inputs if names[number].endswith(_WEIGHT_SUFFIX)
        ]
        # The graph's output has the model's name for it and not that of its layer, which its weights tell.
        last = weights if graph_outputs & set(outputs) else []
        yield Operation(
            builtins[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())],
            tuple(names[number] for number in inputs if number in activations),
            tuple(names[number] for number in outputs),
            tuple(dict.fromkeys([*last, *(part for number in outputs for part in names[number].split(";"))])),
            any(tensors[number].Type() in floats for number in (*inputs, *outputs)),
        )
        activations.update(outputs)


def whole_layer(layer: str) -> str:
    """Return the node that a layer does part of the work of: ``x.conv`` for ``x.conv/rows0/pad`` and for itself."""
    return _PART_SUFFIX.sub("", layer)


def half_weights(model: TFLiteFile) -> Iterator[tuple[str, npt.NDArray[np.float16]]]:
    """Yield the name and the values of each float16 weight of a file."""
    graph = model.root.Subgraphs(0)
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        buffer = model.root.Buffers(tensor.Buffer())
        if tensor.Type() != schema().TensorType.FLOAT16:
            continue
        if buffer.Size():  # ai-edge-quantizer stores weights behind the tables, and their offsets in the buffers
            yield tensor.Name().decode(), np.frombuffer(model, np.float16, buffer.Size() // 2, buffer.Offset())
        elif buffer.DataLength():
            yield tensor.Name().decode(), buffer.DataAsNumpy().view(np.float16)


def shape_of(tensor: Any) -> list[int]:
    """Return the shape of a Tensor table, with -1 for an open size."""
    sizes = tensor.ShapeAsNumpy() if tensor.ShapeSignatureIsNone() else tensor.ShapeSignatureAsNumpy()
    return [int(size) for size in sizes]


def input_shape(model: TFLiteFile) -> list[Any]:
    """Return the shape (N, C, H, W) of the images that a file takes; N is a name where it is open.

    Raises:
        ModelError: for a file whose input is no image.
    """
    graph = model.root.Subgraphs(0)
    signature = shape_of(graph.Tensors(graph.Inputs(0)))
    if len(signature) != 4:
        raise ModelError(f"the model: its input must be images (N, H, W, C), but has shape {signature}")
    batch, height, width, channels = signature
    return ["N" if batch < 0 else batch, channels, height, width]


def observe_tflite(model: TFLiteFile, images: Floats) -> Iterator[dict[str, Floats]]:
    """Yield the float values of the input and of all tensors that operators write, batch by batch.

    Args:
        model: the file.
        images: (N, C, H, W), run as ``split_batches`` divides them.

    Raises:
        UsageError: when the images do not fit the model.
    """
    parts = split_batches(images, input_shape(model))
    interpreter = open_interpreter(model, observed=True)
    source = interpreter.get_input_details()[0]
    names = {name for operation in model.operations for name in operation.outputs} | {source["name"]}
    interpreter.resize_tensor_input(source["index"], [len(parts[0]), *source["shape"][1:]])
    with without_standard_error():
        interpreter.allocate_tensors()
    tensors = [tensor for tensor in interpreter.get_tensor_details() if tensor["name"] in names]
    for part in parts:
        interpreter.set_tensor(source["index"], quantize_values(np.moveaxis(part, 1, -1), source))
        interpreter.invoke()
        yield {tensor["name"]: dequantize_values(interpreter.get_tensor(tensor["index"]), tensor) for tensor in tensors}
