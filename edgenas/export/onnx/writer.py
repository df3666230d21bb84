"""ONNX written straight from an architecture's parts and weights, batch norm folded; no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgenas.errors import UsageError, VerificationError
from edgenas.export.onnx.weights import Floats, Weights, checked_weights, fold_batch_norm
from edgenas.space import Architecture, Part

if TYPE_CHECKING:
    import onnx

_OPSET = 17
_IR_VERSION = 8  # the newest that onnxruntime 1.14 reads
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def build_onnx(architecture: Architecture, weights: Weights, batch: int | None = 1) -> bytes:
    """An architecture as an ONNX file: input ``input`` (batch, 3, r, r), output ``logits`` (batch, classes), float32.

    ``weights`` are named ``{place}.{tensor}`` with the tensors and shapes of
    ``weight_shapes``. A ``batch`` of None leaves it open: the file then calls
    it ``batch``. Equal arguments give equal bytes. Raises UsageError for a
    batch below 1 and a missing, extra or misshapen tensor, and
    VerificationError for one that is not finite, before or after folding.
    """
    import onnx

    if batch is not None and batch < 1:
        raise UsageError(f"batch must be 1 or more, or None for any, but is {batch}")
    writer = _Writer(checked_weights(architecture, weights))
    name = "input"
    for place, part in architecture.parts.items():
        name = _EMITTERS[part.operator](writer, place, part, name)
    first, size = next(iter(architecture.parts.values())), architecture.resolution
    images = "batch" if batch is None else batch
    graph, model = writer.model.graph, writer.model
    graph.name = "edgenas"
    graph.node[-1].output[0] = "logits"
    graph.input.append(_float_tensor("input", (images, first.in_channels, size, size)))
    graph.output.append(_float_tensor("logits", (images, architecture.space.classes)))
    model.ir_version, model.producer_name = _IR_VERSION, "edgenas"
    model.opset_import.append(onnx.helper.make_opsetid("", _OPSET))
    onnx.helper.set_model_props(model, {"edgenas.architecture": architecture.id})
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _float_tensor(name: str, shape: tuple[int | str, ...]) -> onnx.ValueInfoProto:
    import onnx

    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


class _Writer:
    """The model as it grows. Weights go straight into it: each copy of them would cost milliseconds."""

    def __init__(self, weights: dict[str, Floats]) -> None:
        import onnx

        self.weights = weights
        self._scalars: set[str] = set()
        self.model = onnx.ModelProto()

    def node(self, operator: str, name: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node; its output is named like itself, and returned."""
        import onnx

        self.model.graph.node.append(onnx.helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def constant(self, name: str, values: Floats) -> str:
        import onnx

        if not np.isfinite(values).all():
            raise VerificationError(f"{name!r} overflows float32 when its batch norm is folded in; train it again")
        tensor = self.model.graph.initializer.add()
        tensor.name, tensor.data_type = name, onnx.TensorProto.FLOAT
        tensor.dims.extend(values.shape)
        tensor.raw_data = values.astype("<f4", copy=False).tobytes()
        return name

    def scalar(self, name: str, value: float) -> str:
        """A constant that all nodes share."""
        if name not in self._scalars:
            self._scalars.add(self.constant(name, np.array(value, np.float32)))
        return name

    def convolution(self, place: str, source: str, stride: int = 1, groups: int = 1) -> str:
        """A convolution with its own bias, if there is one, padded by half its kernel."""
        return self._convolution(
            place, source, self.weights[f"{place}.weight"], self.weights.get(f"{place}.bias"), stride, groups
        )

    def normalised(self, place: str, source: str, eps: float, stride: int = 1, groups: int = 1) -> str:
        """The convolution ``{place}.conv`` with the batch norm ``{place}.bn`` folded in."""
        norm = {tensor: self.weights[f"{place}.bn.{tensor}"] for tensor in _BATCH_NORM}
        kernel, bias = fold_batch_norm(self.weights[f"{place}.conv.weight"], norm, eps)
        return self._convolution(f"{place}.conv", source, kernel, bias, stride, groups)

    def _convolution(
        self, name: str, source: str, kernel: Floats, bias: Floats | None, stride: int, groups: int
    ) -> str:
        inputs = [source, self.constant(f"{name}.weight", kernel)]
        if bias is not None:
            inputs.append(self.constant(f"{name}.bias", bias))
        size = kernel.shape[-1]
        shape = {"kernel_shape": [size, size], "pads": [size // 2] * 4, "strides": [stride, stride]}
        return self.node("Conv", name, inputs, group=groups, **shape)


def _relu(writer: _Writer, name: str, source: str) -> str:
    return writer.node("Relu", name, [source])


def _hswish(writer: _Writer, name: str, source: str) -> str:
    return writer.node("HardSwish", name, [source])


def _identity(writer: _Writer, name: str, source: str) -> str:
    return source


def _relu6(writer: _Writer, name: str, source: str) -> str:
    return writer.node("Clip", name, [source, writer.scalar("zero", 0.0), writer.scalar("six", 6.0)])


_ACTIVATIONS: dict[str, Callable[[_Writer, str, str], str]] = {
    "relu": _relu,
    "relu6": _relu6,
    "hswish": _hswish,
    "none": _identity,
}


def _conv(writer: _Writer, place: str, part: Part, source: str) -> str:
    if part.batch_norm:
        name = writer.normalised(place, source, part.bn_eps, part.stride)
    else:
        name = writer.convolution(f"{place}.conv", source, part.stride)
    name = _ACTIVATIONS[part.activation](writer, f"{place}.act", name)
    return writer.node("Add", f"{place}.add", [name, source]) if part.shortcut else name


def _mbconv(writer: _Writer, place: str, part: Part, source: str) -> str:
    activate, eps, name = _ACTIVATIONS[part.activation], part.bn_eps, source
    if part.expand:
        name = activate(writer, f"{place}.expand.act", writer.normalised(f"{place}.expand", name, eps))
    name = writer.normalised(f"{place}.depthwise", name, eps, part.stride, groups=part.mid_channels)
    name = activate(writer, f"{place}.depthwise.act", name)
    if part.se_channels:
        name = _squeeze_excite(writer, f"{place}.se", name)
    name = writer.normalised(f"{place}.project", name, eps)
    return writer.node("Add", f"{place}.add", [name, source]) if part.shortcut else name


def _bottleneck(writer: _Writer, place: str, part: Part, source: str) -> str:
    activate, eps = _ACTIVATIONS[part.activation], part.bn_eps
    name = activate(writer, f"{place}.reduce.act", writer.normalised(f"{place}.reduce", source, eps))
    name = activate(writer, f"{place}.filter.act", writer.normalised(f"{place}.filter", name, eps, part.stride))
    name = writer.normalised(f"{place}.project", name, eps)
    if part.projected:
        source = writer.normalised(f"{place}.shortcut", _average_pool(writer, place, part, source), eps)
    return activate(writer, f"{place}.act", writer.node("Add", f"{place}.add", [name, source]))


def _average_pool(writer: _Writer, place: str, part: Part, source: str) -> str:
    if part.stride == 1:
        return source
    shape = {"kernel_shape": [part.stride] * 2, "strides": [part.stride] * 2}
    return writer.node("AveragePool", f"{place}.pool", [source], ceil_mode=1, count_include_pad=0, **shape)


def _max_pool(writer: _Writer, place: str, part: Part, source: str) -> str:
    shape = {"kernel_shape": [part.kernel] * 2, "strides": [part.stride] * 2, "pads": [part.kernel // 2] * 4}
    return writer.node("MaxPool", place, [source], **shape)


def _squeeze_excite(writer: _Writer, place: str, source: str) -> str:
    name = writer.node("GlobalAveragePool", f"{place}.pool", [source])
    name = _relu(writer, f"{place}.relu", writer.convolution(f"{place}.reduce", name))
    name = writer.convolution(f"{place}.expand", name)
    gate = writer.node("HardSigmoid", f"{place}.gate", [name], alpha=1 / 6, beta=0.5)
    return writer.node("Mul", f"{place}.mul", [source, gate])


def _pool(writer: _Writer, place: str, part: Part, source: str) -> str:
    return writer.node("GlobalAveragePool", place, [source])


def _linear(writer: _Writer, place: str, part: Part, source: str) -> str:
    flat = writer.node("Flatten", f"{place}.flatten", [source])
    names = [f"{place}.linear.weight", f"{place}.linear.bias"]
    stored = [writer.constant(name, writer.weights[name]) for name in names]
    return writer.node("Gemm", f"{place}.linear", [flat, *stored], transB=1)


_EMITTERS: dict[str, Callable[[_Writer, str, Part, str], str]] = {
    "conv": _conv,
    "mbconv": _mbconv,
    "bottleneck": _bottleneck,
    "max_pool": _max_pool,
    "pool": _pool,
    "linear": _linear,
}
