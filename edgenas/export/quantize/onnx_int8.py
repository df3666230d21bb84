"""ONNX in int8: static, with QuantizeLinear and DequantizeLinear around every operator that has an integer kernel."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgenas.errors import ModelError, VerificationError
from edgenas.export.onnx.session import (
    images_input,
    load_runtime,
    observe_onnx,
    open_session,
    parse_onnx,
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

if TYPE_CHECKING:
    import onnx

_OLDEST_OPSET = 13  # the first whose DequantizeLinear has a scale per channel
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
_MOVES = ("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_FUSED = ("Clip", "Relu")
_WEIGHTED = ("Conv", "Gemm", "MatMul")
_POOLS = ("AveragePool", "GlobalAveragePool", "MaxPool")
_OPERATORS = (*_WEIGHTED, *_POOLS, *_FUSED, *_MOVES, "Add", "Mul", "HardSigmoid", "Resize", "Concat")
# TensorRT fuses what lies between quantised inputs by itself, and better than any layout of ours could prescribe.
_TENSORRT_OPERATORS = (*_WEIGHTED, *_POOLS, "Add")
_TENSORRT_OPTIONS = {
    "ActivationSymmetric": True,
    "OpTypesToExcludeOutputQuantization": list(_TENSORRT_OPERATORS),
    # Its versions for the Jetsons in use refuse integer biases, integer weights and shared pairs.
    "QuantizeBias": False,
    "AddQDQPairToWeight": True,
    "DedicatedQDQPair": True,
}


def quantize_onnx(model: bytes, calibration: Calibration, kept: frozenset[str], symmetric: bool) -> bytes:
    """The int8 model of a float32 one; ``kept`` are the nodes that stay in float.

    Input and output stay float32. Raises ModelError for a model older than
    opset 13, and VerificationError when symmetric integers were asked for and
    a zero point is not 0.
    """
    original = parse_onnx(model)
    _check_opset(original)
    prepared = parse_onnx(model)
    split_hard_swish(prepared)
    if not symmetric:
        fold_gates(prepared, kept)
    prepared = _preprocessed(prepared)
    pool_means(prepared)
    ranges = _ranges(prepared, calibration) | gate_ranges(prepared)
    quantised = _with_conversions(prepared, ranges, kept, symmetric)
    if symmetric:
        _check_zero_points(quantised)
    else:
        saturate_gates(quantised, kept)
        _keep_apart(quantised, kept)
    return _finished(quantised, original)


def _check_opset(model: onnx.ModelProto) -> None:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions or max(versions) < _OLDEST_OPSET:
        raise ModelError(
            f"the model: int8 needs opset {_OLDEST_OPSET} or newer, but it has {versions or 'none'}; export it anew"
        )


def _preprocessed(model: onnx.ModelProto) -> onnx.ModelProto:
    """onnxruntime's own preparation: constants folded, batch norms too, shapes inferred."""
    import onnx

    load_runtime()
    from onnxruntime.quantization import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "float.onnx", Path(folder) / "prepared.onnx"
        source.write_bytes(model.SerializeToString())
        quant_pre_process(str(source), str(result), skip_symbolic_shape=True)
        return parse_onnx(onnx.load(result).SerializeToString())


def _ranges(model: onnx.ModelProto, calibration: Calibration) -> dict[str, tuple[float, float]]:
    """The range of each float activation over the calibration images."""
    data = model.SerializeToString()
    shape = images_input(open_session(data, optimise=False), data).shape
    ranges = Ranges(calibration.method, len(split_batches(calibration.images, shape)))
    tensors = [name for node in model.graph.node for name in node.output]
    for values in observe_onnx(model, tensors, calibration.images, optimise=True):
        for name, tensor in values.items():
            ranges.add(name, tensor)
    return ranges.result()


def _with_conversions(
    model: onnx.ModelProto, ranges: dict[str, tuple[float, float]], kept: frozenset[str], symmetric: bool
) -> onnx.ModelProto:
    """Weights int8 per channel; activations uint8, or int8 with zero point 0 if symmetric.

    Activations are unsigned because onnxruntime has integer kernels for
    unsigned ones on every processor, for signed ones on ARM alone (4 times
    slower on x86). Weights have 7 bits then: x86 processors without VNNI add
    products in pairs of 16 bits, which 8 bits overflow silently (in the worst
    layer of the demo's subnet 1.6% of pairs and 12% of results). That raises
    the logits' error from 2.8% to 3.2% and keeps the agreement.
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
    quantised: onnx.ModelProto = quantizer.model.model
    return quantised


def _keep_apart(model: onnx.ModelProto, kept: frozenset[str]) -> None:
    """Give each kept layer a DequantizeLinear with a scale per channel, all the same.

    Since 1.20, onnxruntime quantises float weights by itself, in one scale for
    all, where a layer lies between a plain DequantizeLinear and a QuantizeLinear.
    """
    import onnx

    makers = {name: node for node in model.graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    own = []
    for node in model.graph.node:
        maker = makers.get(node.input[0])
        if node.name not in kept or node.op_type not in ("Conv", "Gemm") or maker is None:
            continue
        if maker.op_type != "DequantizeLinear" or node.input[1] not in stored:
            continue
        channels = _input_channels(node, list(stored[node.input[1]].dims))
        names = [f"{node.name}.scale", f"{node.name}.zero_point"]
        for name, source in zip(names, maker.input[1:], strict=True):
            values = np.full(channels, onnx.numpy_helper.to_array(stored[source]))
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        node.input[0] = f"{node.name}.input"
        own.append(onnx.helper.make_node("DequantizeLinear", [maker.input[0], *names], [node.input[0]], node.input[0]))
    nodes = list(model.graph.node)
    for extra in own:
        nodes.insert(next(i for i, node in enumerate(nodes) if extra.output[0] in node.input), extra)
    replace_nodes(model, nodes)


def _input_channels(node: onnx.NodeProto, weight: list[int]) -> int:
    given: dict[str, int] = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Conv":
        return weight[1] * given.get("group", 1)
    return weight[1] if given.get("transB") else weight[0]


def _check_zero_points(model: onnx.ModelProto) -> None:
    import onnx

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in _CONVERSIONS and np.any(onnx.numpy_helper.to_array(stored[node.input[2]])):
            raise VerificationError(f"{node.name}: its zero point is not 0, as symmetric integers need")


def _finished(model: onnx.ModelProto, original: onnx.ModelProto) -> bytes:
    """The file: what onnxruntime's tools leave behind about themselves removed, so that old runtimes read it."""
    domains = {node.domain for node in model.graph.node}
    imports = [entry for entry in model.opset_import if entry.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    model.ir_version, model.producer_name = original.ir_version, original.producer_name
    model.producer_version = original.producer_version
    del model.metadata_props[:]
    model.metadata_props.extend(original.metadata_props)
    del model.graph.value_info[:]
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def float_nodes(model: bytes) -> tuple[str, ...]:
    """The nodes that still compute in float after onnxruntime's optimisation, in order.

    Operators that only move data do not count, nor does an activation that is
    fused into a node before it that does.
    """
    import onnx

    names = {output: node.name for node in parse_onnx(model).graph.node for output in node.output}
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "optimised.onnx"
        open_session(model, save_optimised=saved)
        optimised = onnx.load(saved)
    floats = {entry.name: "input" for entry in optimised.graph.input}
    found: dict[str, None] = {}
    for node in optimised.graph.node:
        before = [floats[name] for name in node.input if name in floats]
        if node.op_type == "QuantizeLinear" or not (before or node.op_type == "DequantizeLinear"):
            continue
        floats |= dict.fromkeys(node.output, node.op_type if node.op_type not in _MOVES else before[0])
        fused = node.op_type in _FUSED and before[0] in _WEIGHTED
        if node.op_type not in (*_CONVERSIONS, *_MOVES) and not fused:
            found[_name(node, names)] = None
    return tuple(found)


def _name(node: Any, names: dict[str, str]) -> str:
    """The node's name in the float32 file: an optimised one has its own if it was not merged with others."""
    own: str = node.name or node.output[0]
    name = own if own in names.values() else names.get(node.output[0], own)
    return name.removesuffix(GATE) if name.removesuffix(GATE) in names.values() else name
