"""Operators that onnxruntime has no integer kernel for, written with those that it has one for.

Left in float, each costs a conversion there and back. A MobileNetV3 written as
here runs in integers from its first to its last layer, a tenth faster.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

GATE = ".gate"
_ALPHA, _BETA = 0.2, 0.5  # of a HardSigmoid that does not say
_STEPS = 255
_SPATIAL = ({2, 3}, {-2, -1})


def is_within(node: str, layers: frozenset[str]) -> bool:
    """Whether a node is one of ``layers`` or the gate that ``split_hard_swish`` made of one."""
    return node in layers or node.removesuffix(GATE) in layers


def split_hard_swish(model: onnx.ModelProto) -> None:
    """Write each HardSwish as what it is by definition, a HardSigmoid ``{name}.gate`` and a Mul of the same name."""
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
    """Turn a HardSigmoid that alone reads a convolution into a Clip to 0..1, its slope and offset in the weights.

    Layers in ``kept`` stay as they are.
    """
    import onnx

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    uses = Counter(name for node in model.graph.node for name in node.input)
    bounds = ["gate.zero", "gate.one"]
    for node in model.graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "HardSigmoid" else None
        if maker is None or maker.op_type != "Conv" or len(maker.input) != 3 or uses[node.input[0]] != 1:
            continue
        if {node.name, maker.name} & kept or any(name not in stored or uses[name] != 1 for name in maker.input[1:]):
            continue
        alpha, beta = _line(node)
        for name, offset in zip(maker.input[1:], (np.float32(0), beta), strict=True):
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
    """Outputs that lie between 0 and 1 whatever comes in: a range beyond that would not clip them."""
    gates = (node for node in model.graph.node if node.op_type == "HardSigmoid" or "gate.one" in node.input)
    return {node.output[0]: (0.0, 1.0) for node in gates}


def saturate_gates(model: onnx.ModelProto, kept: frozenset[str]) -> None:
    """Turn each HardSigmoid between a DequantizeLinear and a QuantizeLinear into an Add of a constant.

    The slope goes into a second DequantizeLinear of the same integers, whose
    scale is the slope times the first one's; where the sum leaves 0..1, the
    QuantizeLinear behind it, whose range is that, saturates. ``kept`` are
    layers to leave in float.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    nodes = []
    for node in model.graph.node:
        maker = makers.get(node.input[0])
        between = (
            maker is not None
            and maker.op_type == "DequantizeLinear"
            and readers.get(node.output[0]) == ["QuantizeLinear"]
        )
        if maker is not None and between and node.op_type == "HardSigmoid" and not is_within(node.name, kept):
            nodes.extend(_saturating(model, node, list(maker.input)))
        else:
            nodes.append(node)
    replace_nodes(model, nodes)


def _saturating(model: onnx.ModelProto, node: onnx.NodeProto, source: list[str]) -> list[onnx.NodeProto]:
    """The Add for a HardSigmoid whose input is stored as ``source``: integers, scale and zero point."""
    import onnx

    alpha, beta = _line(node)
    slope, offset = f"{node.name}.slope", f"{node.name}.offset"
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == source[1])
    constants = {
        f"{slope}_scale": onnx.numpy_helper.to_array(scale) * alpha,
        f"{offset}_quantized": np.array(_STEPS, np.uint8),
        f"{offset}_scale": np.array(beta / _STEPS, np.float32),
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
    """Turn each ReduceMean over height and width of images, as torch.onnx writes it, into a GlobalAveragePool."""
    import onnx

    ranks = {info.name: len(info.type.tensor_type.shape.dim) for info in (*model.graph.input, *model.graph.value_info)}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in (node for node in model.graph.node if node.op_type == "ReduceMean"):
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        axes = given.get("axes", [])
        if len(node.input) > 1 and node.input[1] in stored:
            axes = onnx.numpy_helper.to_array(stored[node.input[1]]).tolist()
        if ranks.get(node.input[0]) == 4 and set(axes) in _SPATIAL and given.get("keepdims", 1):
            node.op_type = "GlobalAveragePool"
            del node.attribute[:], node.input[1:]


def _line(node: onnx.NodeProto) -> tuple[np.float32, np.float32]:
    """Slope and offset of a HardSigmoid."""
    given = {attribute.name: attribute.f for attribute in node.attribute}
    return np.float32(given.get("alpha", _ALPHA)), np.float32(given.get("beta", _BETA))


def replace_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Give a model other nodes, its own among them."""
    kept = [type(node)() for node in nodes]
    for copy, node in zip(kept, nodes, strict=True):
        copy.CopyFrom(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
