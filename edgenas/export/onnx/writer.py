"""ONNX files written from an architecture's parts and weights, batch norm folded, without torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgenas.errors import UsageError, VerificationError
from edgenas.export.onnx.weights import Floats, Weights, check_weights, fold_batch_norm
from edgenas.space import Architecture, Part

if TYPE_CHECKING:
    import onnx

_OPSET = 17
_IR_VERSION = 8  # the newest that onnxruntime 1.14 reads
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def build_onnx(architecture: Architecture, weights: Weights, batch: int | None = 1) -> bytes:
    """Write an architecture as a float32 ONNX file; equal arguments give equal bytes.

    Args:
        architecture: the architecture.
        weights: tensors by name ``{place}.{tensor}``, with the shapes of ``weight_shapes``.
        batch: images of one call; None leaves it open under the name ``batch``.

    Returns:
        The file, with the input ``input`` (batch, 3, r, r) and the output ``logits`` (batch, classes).

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
        name = _WRITERS[part.operator](writer, place, part, name)
    channels, size = next(iter(architecture.parts.values())).in_channels, architecture.resolution
    batch_size = "batch" if batch is None else batch
    graph, model = writer.model.graph, writer.model
    graph.name = "edgenas"
    graph.node[-1].output[0] = "logits"
    graph.input.append(_float_tensor("input", (batch_size, channels, size, size)))
    graph.output.append(_float_tensor("logits", (batch_size, architecture.space.classes)))
    model.ir_version, model.producer_name = _IR_VERSION, "edgenas"
    model.opset_import.append(onnx.helper.make_opsetid("", _OPSET))
    onnx.helper.set_model_props(model, {"edgenas.architecture": architecture.id})
    data: bytes = model.SerializeToString(deterministic=True)
    return data


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

    def add_conv(self, place: str, source: str, stride: int = 1, groups: int = 1) -> str:
        """Append a convolution with its bias, if it has one, padded by half its kernel."""
        return self._add_conv(
            place, source, self.weights[f"{place}.weight"], self.weights.get(f"{place}.bias"), stride, groups
        )

    def add_conv_bn(self, place: str, source: str, eps: float, stride: int = 1, groups: int = 1) -> str:
        """Append the convolution ``{place}.conv`` with the batch norm ``{place}.bn`` folded in."""
        norm = {tensor: self.weights[f"{place}.bn.{tensor}"] for tensor in _BATCH_NORM}
        kernel, bias = fold_batch_norm(self.weights[f"{place}.conv.weight"], norm, eps)
        return self._add_conv(f"{place}.conv", source, kernel, bias, stride, groups)

    def _add_conv(self, name: str, source: str, kernel: Floats, bias: Floats | None, stride: int, groups: int) -> str:
        inputs = [source, self.add_constant(f"{name}.weight", kernel)]
        if bias is not None:
            inputs.append(self.add_constant(f"{name}.bias", bias))
        size = kernel.shape[-1]
        shape = {"kernel_shape": [size, size], "pads": [size // 2] * 4, "strides": [stride, stride]}
        return self.add_node("Conv", name, inputs, group=groups, **shape)


def _relu(writer: _Writer, name: str, source: str) -> str:
    return writer.add_node("Relu", name, [source])


def _relu6(writer: _Writer, name: str, source: str) -> str:
    return writer.add_node("Clip", name, [source, writer.add_scalar("zero", 0.0), writer.add_scalar("six", 6.0)])


_ACTIVATIONS: dict[str, Callable[[_Writer, str, str], str]] = {
    "relu": _relu,
    "relu6": _relu6,
    "hswish": lambda writer, name, source: writer.add_node("HardSwish", name, [source]),
    "none": lambda writer, name, source: source,
}


def _write_conv(writer: _Writer, place: str, part: Part, source: str) -> str:
    if part.batch_norm:
        name = writer.add_conv_bn(place, source, part.bn_eps, part.stride)
    else:
        name = writer.add_conv(f"{place}.conv", source, part.stride)
    name = _ACTIVATIONS[part.activation](writer, f"{place}.act", name)
    return writer.add_node("Add", f"{place}.add", [name, source]) if part.shortcut else name


def _write_mbconv(writer: _Writer, place: str, part: Part, source: str) -> str:
    activate, eps, name = _ACTIVATIONS[part.activation], part.bn_eps, source
    if part.expand:
        name = activate(writer, f"{place}.expand.act", writer.add_conv_bn(f"{place}.expand", name, eps))
    name = writer.add_conv_bn(f"{place}.depthwise", name, eps, part.stride, groups=part.mid_channels)
    name = activate(writer, f"{place}.depthwise.act", name)
    if part.se_channels:
        name = _squeeze_excite(writer, f"{place}.se", name)
    name = writer.add_conv_bn(f"{place}.project", name, eps)
    return writer.add_node("Add", f"{place}.add", [name, source]) if part.shortcut else name


def _write_bottleneck(writer: _Writer, place: str, part: Part, source: str) -> str:
    activate, eps = _ACTIVATIONS[part.activation], part.bn_eps
    name = activate(writer, f"{place}.reduce.act", writer.add_conv_bn(f"{place}.reduce", source, eps))
    name = activate(writer, f"{place}.filter.act", writer.add_conv_bn(f"{place}.filter", name, eps, part.stride))
    name = writer.add_conv_bn(f"{place}.project", name, eps)
    if part.projected:
        if part.stride > 1:
            shape = {"kernel_shape": [part.stride] * 2, "strides": [part.stride] * 2}
            source = writer.add_node(
                "AveragePool", f"{place}.pool", [source], ceil_mode=1, count_include_pad=0, **shape
            )
        source = writer.add_conv_bn(f"{place}.shortcut", source, eps)
    return activate(writer, f"{place}.act", writer.add_node("Add", f"{place}.add", [name, source]))


def _write_max_pool(writer: _Writer, place: str, part: Part, source: str) -> str:
    shape = {"kernel_shape": [part.kernel] * 2, "strides": [part.stride] * 2, "pads": [part.kernel // 2] * 4}
    return writer.add_node("MaxPool", place, [source], **shape)


def _squeeze_excite(writer: _Writer, place: str, source: str) -> str:
    name = writer.add_node("GlobalAveragePool", f"{place}.pool", [source])
    name = _relu(writer, f"{place}.relu", writer.add_conv(f"{place}.reduce", name))
    name = writer.add_conv(f"{place}.expand", name)
    gate = writer.add_node("HardSigmoid", f"{place}.gate", [name], alpha=1 / 6, beta=0.5)
    return writer.add_node("Mul", f"{place}.mul", [source, gate])


def _write_linear(writer: _Writer, place: str, part: Part, source: str) -> str:
    flat = writer.add_node("Flatten", f"{place}.flatten", [source])
    names = [f"{place}.linear.weight", f"{place}.linear.bias"]
    stored = [writer.add_constant(name, writer.weights[name]) for name in names]
    return writer.add_node("Gemm", f"{place}.linear", [flat, *stored], transB=1)


_WRITERS: dict[str, Callable[[_Writer, str, Part, str], str]] = {
    "conv": _write_conv,
    "mbconv": _write_mbconv,
    "bottleneck": _write_bottleneck,
    "max_pool": _write_max_pool,
    "pool": lambda writer, place, part, source: writer.add_node("GlobalAveragePool", place, [source]),
    "linear": _write_linear,
}
