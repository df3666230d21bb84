"""ONNX in int8, static: QuantizeLinear and DequantizeLinear around every operator that has an integer kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgenas.errors import ModelError, VerificationError
from edgenas.export.onnx.session import (
    OnnxFile,
    copy_model,
    input_shape,
    load_runtime,
    observe_onnx,
    open_session,
    split_batches,
)
from edgenas.export.quantize.calibration import Calibration, Ranges
from edgenas.export.quantize.onnx_rewrites import (
    GATE,
    fold_gates,
    gate_ranges,
    is_within,
    pool_means,
    replace_nodes,
    saturate_gates,
    split_hard_swish,
)
from edgenas.files import write_bytes
from edgenas.on_device.work_folder import WorkFolder

if TYPE_CHECKING:
    import onnx

_MIN_OPSET = 13  # the first whose DequantizeLinear has a scale per channel
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
_MOVES = ("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_FUSED = ("Clip", "Relu")
_WEIGHTED = ("Conv", "Gemm", "MatMul")
_POOLS = ("AveragePool", "GlobalAveragePool", "MaxPool")
_OPERATORS = (*_WEIGHTED, *_POOLS, *_FUSED, *_MOVES, "Add", "Mul", "HardSigmoid", "Resize", "Concat")
# TensorRT fuses the operators between quantized inputs by itself, better than a layout could prescribe.
_TENSORRT_OPERATORS = (*_WEIGHTED, *_POOLS, "Add")
_TENSORRT_OPTIONS = {
    "ActivationSymmetric": True,
    "OpTypesToExcludeOutputQuantization": list(_TENSORRT_OPERATORS),
    # Its versions on Jetsons in use refuse integer biases, integer weights and shared pairs.
    "QuantizeBias": False,
    "AddQDQPairToWeight": True,
    "DedicatedQDQPair": True,
}


def quantize_onnx(
    model: onnx.ModelProto, calibration: Calibration, kept: frozenset[str], *, symmetric: bool = False
) -> bytes:
    """Convert a float32 model to int8; input and output stay float32.

    Args:
        model: the model, which stays as it is.
        calibration: images for the ranges of activations.
        kept: nodes that stay in float.
        symmetric: signed activations with all zero points 0, for TensorRT.

    Raises:
        ModelError: for a model older than opset 13.
        VerificationError: when ``symmetric`` and a zero point is not 0.
    """
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions or max(versions) < _MIN_OPSET:
        raise ModelError(
            f"the model: int8 needs opset {_MIN_OPSET} or newer, but it has {versions or 'none'}; export it again"
        )
    prepared = copy_model(model)
    split_hard_swish(prepared)
    if not symmetric:
        fold_gates(prepared, kept)
    prepared = _preprocess(prepared)
    pool_means(prepared)
    ranges = _calibrate(prepared, calibration) | gate_ranges(prepared)
    quantized = _insert_conversions(prepared, ranges, kept, symmetric)
    if symmetric:
        _check_zero_points(quantized)
    else:
        saturate_gates(quantized, kept)
        _isolate_kept_layers(quantized, kept)
    _restore_metadata(quantized, model)
    data: bytes = quantized.SerializeToString(deterministic=True)
    return data


def _preprocess(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and batch norms and infer shapes, by onnxruntime's own tool."""
    load_runtime()
    from onnxruntime.quantization import quant_pre_process

    with WorkFolder() as folder:
        source, output = folder / "float.onnx", folder / "prepared.onnx"
        write_bytes(source, model.SerializeToString())
        quant_pre_process(str(source), str(output), skip_symbolic_shape=True)
        return OnnxFile(output.read_bytes()).proto


def _calibrate(model: onnx.ModelProto, calibration: Calibration) -> dict[str, tuple[float, float]]:
    """Return the range of each float activation over the calibration images."""
    ranges = Ranges(calibration.method, len(split_batches(calibration.images, input_shape(model))))
    tensors = [name for node in model.graph.node for name in node.output]
    for values in observe_onnx(model, tensors, calibration.images, optimise=True):
        for name, tensor in values.items():
            ranges.add(name, tensor)
    return ranges.result()


def _insert_conversions(
    model: onnx.ModelProto, ranges: dict[str, tuple[float, float]], kept: frozenset[str], symmetric: bool
) -> onnx.ModelProto:
    """Quantize weights to int8 per channel and activations to uint8, or to int8 with zero point 0 if symmetric.

    onnxruntime has integer kernels for unsigned activations on every
    processor, for signed ones on ARM alone (4 times slower on x86). With
    unsigned ones weights have 7 bits: x86 processors without VNNI add products
    in pairs of 16 bits, which 8 bits overflow silently (in the worst layer of
    the demo's subnet 1.6% of pairs and 12% of results). That raises the
    logits' error from 2.8% to 3.2% and keeps the top-1 agreement.
    """
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorData, TensorsData

    data = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()}
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=not symmetric,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[],
        nodes_to_exclude=[node.name for node in model.graph.node if is_within(node.name, kept)],
        op_types_to_quantize=list(_TENSORRT_OPERATORS if symmetric else _OPERATORS),
        extra_options=dict(_TENSORRT_OPTIONS) if symmetric else {},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized


def _isolate_kept_layers(model: onnx.ModelProto, kept: frozenset[str]) -> None:
    """Give each kept layer its own DequantizeLinear with a scale per channel, all scales equal.

    Since 1.20, onnxruntime quantizes the float weights of a layer between a
    plain DequantizeLinear and a QuantizeLinear, with one scale for all channels.
    """
    import onnx

    writers = {name: node for node in model.graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    added = []
    for node in model.graph.node:
        writer = writers.get(node.input[0])
        if node.name not in kept or node.op_type not in ("Conv", "Gemm") or writer is None:
            continue
        if writer.op_type != "DequantizeLinear" or node.input[1] not in stored:
            continue
        channels = _input_channels(node, list(stored[node.input[1]].dims))
        names = [f"{node.name}.scale", f"{node.name}.zero_point"]
        for name, source in zip(names, writer.input[1:], strict=True):
            values = np.full(channels, onnx.numpy_helper.to_array(stored[source]))
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        node.input[0] = f"{node.name}.input"
        inputs = [writer.input[0], *names]
        added.append(onnx.helper.make_node("DequantizeLinear", inputs, [node.input[0]], node.input[0]))
    nodes = list(model.graph.node)
    for conversion in added:
        nodes.insert(next(i for i, node in enumerate(nodes) if conversion.output[0] in node.input), conversion)
    replace_nodes(model, nodes)


def _input_channels(node: onnx.NodeProto, weight_shape: list[int]) -> int:
    attributes: dict[str, int] = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Conv":
        return weight_shape[1] * attributes.get("group", 1)
    return weight_shape[1] if attributes.get("transB") else weight_shape[0]


def _check_zero_points(model: onnx.ModelProto) -> None:
    import onnx

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in _CONVERSIONS and np.any(onnx.numpy_helper.to_array(stored[node.input[2]])):
            raise VerificationError(f"{node.name}: its zero point is not 0, as symmetric integers need")


def _restore_metadata(model: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """Remove what onnxruntime's tools write about themselves, so that old runtimes read the file."""
    domains = {node.domain for node in model.graph.node}
    imports = [entry for entry in model.opset_import if entry.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    model.ir_version, model.producer_name = original.ir_version, original.producer_name
    model.producer_version = original.producer_version
    del model.metadata_props[:]
    model.metadata_props.extend(original.metadata_props)
    del model.graph.value_info[:]


def float_nodes(model: OnnxFile) -> tuple[str, ...]:
    """Return the nodes that still compute in float after onnxruntime's optimisation, in order.

    Operators that only move data do not count, and an activation counts with
    the node that it is fused into.
    """
    import onnx

    names = {output: node.name for node in model.proto.graph.node for output in node.output}
    with WorkFolder() as folder:
        path = folder / "optimised.onnx"
        open_session(model, save_optimised=path)
        optimised = onnx.load(path)
    # The operator that wrote each float tensor, seen through those that only move data.
    float_writers = {value.name: "input" for value in optimised.graph.input}
    layers: dict[str, None] = {}
    for node in optimised.graph.node:
        sources = [float_writers[name] for name in node.input if name in float_writers]
        if node.op_type == "QuantizeLinear" or not (sources or node.op_type == "DequantizeLinear"):
            continue
        float_writers |= dict.fromkeys(node.output, node.op_type if node.op_type not in _MOVES else sources[0])
        fused = node.op_type in _FUSED and sources[0] in _WEIGHTED
        if node.op_type not in (*_CONVERSIONS, *_MOVES) and not fused:
            layers[_original_name(node, names)] = None
    return tuple(layers)


def _original_name(node: Any, names: dict[str, str]) -> str:
    """Return the name in the float32 file of an optimised node; ``names`` are those of nodes by output.

    A node that was merged with others has a new name and the output of one of them.
    """
    own: str = node.name or node.output[0]
    name = own if own in names.values() else names.get(node.output[0], own)
    return name.removesuffix(GATE) if name.removesuffix(GATE) in names.values() else name
