"""ONNX files written from the layers and weights of an architecture, batch norm folded, without torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgenas.errors import UsageError, VerificationError
from edgenas.export.onnx.session import OnnxFile
from edgenas.export.onnx.weights import Floats, Weights, check_weights, fold_batch_norm
from edgenas.space import Architecture
from edgenas.space.layers import (
    Activation,
    Add,
    AveragePool,
    BatchNorm,
    Conv,
    Flatten,
    GlobalPool,
    Layer,
    LayerGraph,
    Linear,
    MaxPool,
    Multiply,
)

if TYPE_CHECKING:
    import onnx

_OPSET = 17
_IR_VERSION = 8  # the newest that onnxruntime 1.14 reads
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def build_onnx(architecture: Architecture, weights: Weights, batch: int | None = 1) -> OnnxFile:
    """Write an architecture as a float32 ONNX file; equal arguments give equal bytes.

    Args:
        architecture: the architecture.
        weights: tensors by name ``{place}.{tensor}``, with the shapes of ``weight_shapes``.
        batch: images of one call; None leaves it open under the name ``batch``.

    Returns:
        The file, with the input ``input`` (batch, C, H, W) and the output ``logits`` (batch, classes).

    Raises:
        UsageError: for a batch below 1, or a missing, extra or misshapen tensor.
        VerificationError: for a tensor that is not finite before or after folding.
    """
    import onnx

    if batch is not None and batch < 1:
        raise UsageError(f"batch must be 1 or more, or None for any, but is {batch}")
    writer = _Writer(check_weights(architecture, weights))
    name = "input"
    for place, part in architecture.parts.items():
        name = writer.add_graph(place, part.graph, name)
    batch_size = "batch" if batch is None else batch
    graph, model = writer.model.graph, writer.model
    graph.name = "edgenas"
    graph.node[-1].output[0] = "logits"
    graph.input.append(_float_tensor("input", (batch_size, *architecture.input_shape)))
    graph.output.append(_float_tensor("logits", (batch_size, architecture.space.classes)))
    model.ir_version, model.producer_name = _IR_VERSION, "edgenas"
    model.opset_import.append(onnx.helper.make_opsetid("", _OPSET))
    onnx.helper.set_model_props(model, {"edgenas.architecture": architecture.id})
    return OnnxFile(model.SerializeToString(deterministic=True))


def _float_tensor(name: str, shape: tuple[int | str, ...]) -> onnx.ValueInfoProto:
    import onnx

    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


class _Writer:
    """The model under construction. Weights are written straight into it: each copy would cost milliseconds."""

    def __init__(self, weights: dict[str, Floats]) -> None:
        import onnx

        self.weights = weights
        self._scalars: set[str] = set()
        self.model = onnx.ModelProto()

    def add_graph(self, place: str, graph: LayerGraph, source: str) -> str:
        """Append the nodes of a block's layers, which read ``source``, and return the block's output."""
        norms = {layer.inputs[0]: layer for layer in graph.layers if isinstance(layer, BatchNorm)}
        values = [source]
        for number, layer in enumerate(graph.layers, 1):
            name, inputs = f"{place}.{layer.name}" if layer.name else place, [values[value] for value in layer.inputs]
            if isinstance(layer, Conv):
                values.append(self._add_conv(place, name, layer, norms.get(number), inputs[0]))
            elif isinstance(layer, BatchNorm):  # folded into the convolution before it
                values.append(inputs[0])
            else:
                values.append(_WRITERS[type(layer)](self, name, layer, inputs))
        return values[-1]

    def _add_conv(self, place: str, name: str, layer: Conv, norm: BatchNorm | None, source: str) -> str:
        """Append a convolution with the batch norm after it, if there is one, folded in."""
        kernel, bias = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        if norm is not None:
            tensors = {tensor: self.weights[f"{place}.{norm.name}.{tensor}"] for tensor in _BATCH_NORM}
            kernel, bias = fold_batch_norm(kernel, tensors, norm.eps)
        inputs = [source, self.add_constant(f"{name}.weight", kernel)]
        if bias is not None:
            inputs.append(self.add_constant(f"{name}.bias", bias))
        shape = _window(layer.kernel, layer.stride, layer.kernel // 2)
        return self.add_node("Conv", name, inputs, group=layer.groups, **shape)

    def add_node(self, operator: str, name: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node and return its output, which has its name."""
        import onnx

        self.model.graph.node.append(onnx.helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def add_constant(self, name: str, values: Floats) -> str:
        import onnx

        if not np.isfinite(values).all():
            raise VerificationError(f"{name!r} overflows float32 when its batch norm is folded in; train it again")
        tensor = self.model.graph.initializer.add()
        tensor.name, tensor.data_type = name, onnx.TensorProto.FLOAT
        tensor.dims.extend(values.shape)
        tensor.raw_data = values.astype("<f4", copy=False).tobytes()
        return name

    def add_scalar(self, name: str, value: float) -> str:
        """Return a constant that all nodes share."""
        if name not in self._scalars:
            self._scalars.add(self.add_constant(name, np.array(value, np.float32)))
        return name


def _window(kernel: int, stride: int, padding: int) -> dict[str, list[int]]:
    """Return the attributes of a square window."""
    return {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4}


def _write_activation(writer: _Writer, name: str, layer: Layer, inputs: list[str]) -> str:
    assert isinstance(layer, Activation)
    if layer.function == "relu6":
        return writer.add_node("Clip", name, [*inputs, writer.add_scalar("zero", 0.0), writer.add_scalar("six", 6.0)])
    operator, attributes = _ACTIVATIONS[layer.function]
    return writer.add_node(operator, name, inputs, **attributes)


_ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "relu": ("Relu", {}),
    "hswish": ("HardSwish", {}),
    "hsigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
}


def _write_average_pool(writer: _Writer, name: str, layer: Layer, inputs: list[str]) -> str:
    assert isinstance(layer, AveragePool)
    shape = {"kernel_shape": [layer.stride] * 2, "strides": [layer.stride] * 2}
    return writer.add_node("AveragePool", name, inputs, ceil_mode=1, count_include_pad=0, **shape)


def _write_max_pool(writer: _Writer, name: str, layer: Layer, inputs: list[str]) -> str:
    assert isinstance(layer, MaxPool)
    return writer.add_node("MaxPool", name, inputs, **_window(layer.kernel, layer.stride, layer.kernel // 2))


def _write_linear(writer: _Writer, name: str, layer: Layer, inputs: list[str]) -> str:
    stored = [writer.add_constant(tensor, writer.weights[tensor]) for tensor in (f"{name}.weight", f"{name}.bias")]
    return writer.add_node("Gemm", name, [*inputs, *stored], transB=1)


_WRITERS: dict[type[Layer], Callable[[_Writer, str, Layer, list[str]], str]] = {
    Activation: _write_activation,
    Add: lambda writer, name, layer, inputs: writer.add_node("Add", name, inputs),
    AveragePool: _write_average_pool,
    Flatten: lambda writer, name, layer, inputs: writer.add_node("Flatten", name, inputs),
    GlobalPool: lambda writer, name, layer, inputs: writer.add_node("GlobalAveragePool", name, inputs),
    Linear: _write_linear,
    MaxPool: _write_max_pool,
    Multiply: lambda writer, name, layer, inputs: writer.add_node("Mul", name, inputs),
}
