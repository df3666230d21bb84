"""Rewrites of operators that onnxruntime has no integer kernel for into operators that have one.

An operator that stays float costs a conversion before it and one after it. A
MobileNetV3 that is rewritten runs in integers from its first to its last
layer, a tenth faster.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

GATE = ".gate"
_ALPHA, _BETA = 0.2, 0.5  # defaults of HardSigmoid
_UINT8_MAX = 255
_HEIGHT_AND_WIDTH = ({2, 3}, {-2, -1})


def is_within(node: str, layers: frozenset[str]) -> bool:
    """Return True for one of ``layers`` and for the gate that ``split_hard_swish`` made of one."""
    return node in layers or node.removesuffix(GATE) in layers


def split_hard_swish(model: onnx.ModelProto) -> None:
    """Replace each HardSwish by a HardSigmoid ``{name}.gate`` and a Mul with its name, which is its definition."""
    import onnx

    nodes = []
    for node in model.graph.node:
        if node.op_type != "HardSwish":
            nodes.append(node)
            continue
        source, gate = node.input[0], node.name + GATE
        nodes.append(onnx.helper.make_node("HardSigmoid", [source], [gate], gate, alpha=1 / 6, beta=0.5))
        nodes.append(onnx.helper.make_node("Mul", [source, gate], list(node.output), node.name))
    replace_nodes(model, nodes)


def fold_gates(model: onnx.ModelProto, kept: frozenset[str]) -> None:
    """Replace each HardSigmoid that alone reads a convolution by a Clip to 0..1, its slope and offset in the weights.

    Layers in ``kept`` stay as they are.
    """
    import onnx

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    writers = {name: node for node in model.graph.node for name in node.output}
    uses = Counter(name for node in model.graph.node for name in node.input)
    bounds = ["gate.zero", "gate.one"]
    for node in model.graph.node:
        conv = writers.get(node.input[0]) if node.op_type == "HardSigmoid" else None
        if conv is None or conv.op_type != "Conv" or len(conv.input) != 3 or uses[node.input[0]] != 1:
            continue
        if {node.name, conv.name} & kept or any(name not in stored or uses[name] != 1 for name in conv.input[1:]):
            continue
        alpha, beta = _slope_and_offset(node)
        for name, offset in zip(conv.input[1:], (np.float32(0), beta), strict=True):
            values = onnx.numpy_helper.to_array(stored[name]) * alpha + offset
            stored[name].CopyFrom(onnx.numpy_helper.from_array(values, name))
        node.op_type = "Clip"
        del node.attribute[:]
        node.input.extend(bounds)
        if bounds[0] not in stored:
            for name, bound in zip(bounds, (0, 1), strict=True):
                stored[name] = onnx.numpy_helper.from_array(np.array(bound, np.float32), name)
                model.graph.initializer.append(stored[name])


def gate_ranges(model: onnx.ModelProto) -> dict[str, tuple[float, float]]:
    """Return the range 0 to 1 for the output of each gate; a larger range would not clip it."""
    gates = (node for node in model.graph.node if node.op_type == "HardSigmoid" or "gate.one" in node.input)
    return {node.output[0]: (0.0, 1.0) for node in gates}


def saturate_gates(model: onnx.ModelProto, kept: frozenset[str]) -> None:
    """Replace each HardSigmoid between a DequantizeLinear and a QuantizeLinear by an Add of a constant.

    A second DequantizeLinear of the same integers applies the slope: its scale
    is the slope times the first one's. The QuantizeLinear has the range 0 to 1
    and saturates sums outside of it. Layers in ``kept`` stay float.
    """
    writers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    nodes = []
    for node in model.graph.node:
        writer = writers.get(node.input[0])
        if (
            node.op_type == "HardSigmoid"
            and not is_within(node.name, kept)
            and writer is not None
            and writer.op_type == "DequantizeLinear"
            and readers.get(node.output[0]) == ["QuantizeLinear"]
        ):
            nodes.extend(_saturating_add(model, node, list(writer.input)))
        else:
            nodes.append(node)
    replace_nodes(model, nodes)


def _saturating_add(model: onnx.ModelProto, node: onnx.NodeProto, source: list[str]) -> list[onnx.NodeProto]:
    """Return the Add for a HardSigmoid whose input is stored as ``source``: integers, scale and zero point."""
    import onnx

    alpha, beta = _slope_and_offset(node)
    slope, offset = f"{node.name}.slope", f"{node.name}.offset"
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == source[1])
    constants = {
        f"{slope}_scale": onnx.numpy_helper.to_array(scale) * alpha,
        f"{offset}_quantized": np.array(_UINT8_MAX, np.uint8),
        f"{offset}_scale": np.array(beta / _UINT8_MAX, np.float32),
        f"{offset}_zero_point": np.array(0, np.uint8),
    }
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()
    )
    slope_scale, *stored = constants
    return [
        onnx.helper.make_node("DequantizeLinear", [source[0], slope_scale, source[2]], [slope], slope),
        onnx.helper.make_node("DequantizeLinear", stored, [offset], offset),
        onnx.helper.make_node("Add", [slope, offset], list(node.output), node.name),
    ]


def pool_means(model: onnx.ModelProto) -> None:
    """Replace each ReduceMean over height and width, as torch.onnx writes it, by a GlobalAveragePool."""
    import onnx

    ranks = {info.name: len(info.type.tensor_type.shape.dim) for info in (*model.graph.input, *model.graph.value_info)}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in (node for node in model.graph.node if node.op_type == "ReduceMean"):
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        axes = attributes.get("axes", [])
        if len(node.input) > 1 and node.input[1] in stored:
            axes = onnx.numpy_helper.to_array(stored[node.input[1]]).tolist()
        if ranks.get(node.input[0]) == 4 and set(axes) in _HEIGHT_AND_WIDTH and attributes.get("keepdims", 1):
            node.op_type = "GlobalAveragePool"
            del node.attribute[:], node.input[1:]


def _slope_and_offset(node: onnx.NodeProto) -> tuple[np.float32, np.float32]:
    """Return alpha and beta of a HardSigmoid."""
    attributes = {attribute.name: attribute.f for attribute in node.attribute}
    return np.float32(attributes.get("alpha", _ALPHA)), np.float32(attributes.get("beta", _BETA))


def replace_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Replace the nodes of a model by others, which may include its own."""
    copies = [type(node)() for node in nodes]
    for copy, node in zip(copies, nodes, strict=True):
        copy.CopyFrom(node)
    del model.graph.node[:]
    model.graph.node.extend(copies)
