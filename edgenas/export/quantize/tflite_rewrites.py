"""Hard swishes of a TFLite file for int8, rewritten: XNNPACK has an 8-bit kernel for every operator but them."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgenas.export.tflite.file import schema
from edgenas.export.tflite.layers import TFLiteFile


def split_hard_swish(model: TFLiteFile, kept: frozenset[str]) -> TFLiteFile:
    """Replace each HARD_SWISH of a float32 file by x * relu6(x + 3) * 1/6, whose output has its name.

    In int8 a HARD_SWISH ends the part of the graph that XNNPACK runs, and
    LiteRT's own kernel is slower than these three operators: the demo's
    networks take 1.4 times as long. One that writes a tensor of ``kept`` stays.
    """
    import flatbuffers

    types = schema()
    tree = types.ModelT.InitFromObj(model.root)
    codes = _builtin_codes(tree)
    if types.BuiltinOperator.HARD_SWISH not in codes:
        return model
    graph = tree.subgraphs[0]
    three, sixth = (
        _add_constant(tree, name, value) for name, value in (("hard_swish/three", 3), ("hard_swish/sixth", 1 / 6))
    )
    operators = []
    for operator in graph.operators:
        source, output = operator.inputs[0], operator.outputs[0]
        is_split = codes[operator.opcodeIndex] == types.BuiltinOperator.HARD_SWISH
        if not is_split or graph.tensors[output].name.decode() in kept:
            operators.append(operator)
            continue
        shifted, sixfold = (_add_activation(graph, output, suffix) for suffix in ("shifted", "sixfold"))
        operators.append(_make_operator(tree, "ADD", (source, three), shifted, types.ActivationFunctionType.RELU6))
        operators.append(_make_operator(tree, "MUL", (source, shifted), sixfold))
        operators.append(_make_operator(tree, "MUL", (sixfold, sixth), output))
    graph.operators = operators
    builder = flatbuffers.Builder(len(model) + 4096)
    builder.Finish(tree.Pack(builder), file_identifier=b"TFL3")
    return TFLiteFile(builder.Output())


def _builtin_codes(tree: Any) -> list[int]:
    return [max(code.builtinCode, code.deprecatedBuiltinCode) for code in tree.operatorCodes]


def _add_constant(tree: Any, name: str, value: float) -> int:
    """Add a float32 number and return its tensor index."""
    types = schema()
    buffer, tensor = types.BufferT(), types.TensorT()
    buffer.data = np.frombuffer(np.float32(value).tobytes(), np.uint8)
    tree.buffers.append(buffer)
    tensor.name, tensor.shape, tensor.type = name, [], types.TensorType.FLOAT32
    tensor.buffer = len(tree.buffers) - 1
    tree.subgraphs[0].tensors.append(tensor)
    return len(tree.subgraphs[0].tensors) - 1


def _add_activation(graph: Any, template: int, suffix: str) -> int:
    """Add an activation of the same shape and type as the tensor ``template`` and return its index."""
    pattern, tensor = graph.tensors[template], schema().TensorT()
    tensor.name = f"{pattern.name.decode()}/{suffix}"
    tensor.shape, tensor.shapeSignature, tensor.type = pattern.shape, pattern.shapeSignature, pattern.type
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _make_operator(tree: Any, builtin: str, inputs: tuple[int, int], output: int, activation: int = 0) -> Any:
    """Return an ADD or MUL with a fused activation, and add its code to the file if it is new."""
    types = schema()
    code = getattr(types.BuiltinOperator, builtin)
    codes = _builtin_codes(tree)
    if code not in codes:
        entry = types.OperatorCodeT()
        entry.builtinCode = entry.deprecatedBuiltinCode = code
        entry.version = 1
        tree.operatorCodes.append(entry)
        codes.append(code)
    table = builtin.capitalize() + "Options"
    operator = types.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = codes.index(code), list(inputs), [output]
    operator.builtinOptionsType = getattr(types.BuiltinOptions, table)
    operator.builtinOptions = getattr(types, f"{table}T")()
    operator.builtinOptions.fusedActivationFunction = activation
    return operator
