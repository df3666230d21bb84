"""Hard swishes of a TFLite file written for int8: XNNPACK, which runs all other operators, has none of 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgenas.export.tflite.file import schema

_PARTS = ("shifted", "sixfold")


def split_hard_swish(model: bytes, kept: frozenset[str]) -> bytes:
    """Write each HARD_SWISH of a float32 file as x * relu6(x + 3) * 1/6; its output keeps the name.

    Those that write a tensor of ``kept`` stay.

    In int8 each one ends the part of the graph that XNNPACK runs, and LiteRT's
    own kernel is slower than these three: the demo's networks take 1.4 times as long.
    """
    import flatbuffers

    types = schema()
    tree = types.ModelT.InitFromPackedBuf(model, 0)
    codes = _codes(tree)
    if types.BuiltinOperator.HARD_SWISH not in codes:
        return model
    graph = tree.subgraphs[0]
    three, sixth = (
        _constant(tree, name, value) for name, value in (("hard_swish/three", 3), ("hard_swish/sixth", 1 / 6))
    )
    operators = []
    for operator in graph.operators:
        (source, *_), (result, *_) = operator.inputs, operator.outputs
        is_split = codes[operator.opcodeIndex] == types.BuiltinOperator.HARD_SWISH
        if not is_split or graph.tensors[result].name.decode() in kept:
            operators.append(operator)
            continue
        shifted, sixfold = (_like(graph, result, part) for part in _PARTS)
        operators.append(_operator(tree, "ADD", (source, three), shifted, types.ActivationFunctionType.RELU6))
        operators.append(_operator(tree, "MUL", (source, shifted), sixfold))
        operators.append(_operator(tree, "MUL", (sixfold, sixth), result))
    graph.operators = operators
    builder = flatbuffers.Builder(len(model) + 4096)
    builder.Finish(tree.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _codes(tree: Any) -> list[int]:
    return [max(code.builtinCode, code.deprecatedBuiltinCode) for code in tree.operatorCodes]


def _constant(tree: Any, name: str, value: float) -> int:
    types = schema()
    buffer, tensor = types.BufferT(), types.TensorT()
    buffer.data = np.frombuffer(np.float32(value).tobytes(), np.uint8)
    tree.buffers.append(buffer)
    tensor.name, tensor.shape, tensor.type = name, [], types.TensorType.FLOAT32
    tensor.buffer = len(tree.buffers) - 1
    tree.subgraphs[0].tensors.append(tensor)
    return len(tree.subgraphs[0].tensors) - 1


def _like(graph: Any, number: int, part: str) -> int:
    """A new activation of the same shape as the tensor ``number``."""
    pattern, tensor = graph.tensors[number], schema().TensorT()
    tensor.name = f"{pattern.name.decode()}/{part}"
    tensor.shape, tensor.shapeSignature, tensor.type = pattern.shape, pattern.shapeSignature, pattern.type
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _operator(tree: Any, kind: str, inputs: tuple[int, int], output: int, activation: int = 0) -> Any:
    types = schema()
    code = getattr(types.BuiltinOperator, kind)
    known = _codes(tree)
    if code not in known:
        added = types.OperatorCodeT()
        added.builtinCode = added.deprecatedBuiltinCode = code
        added.version = 1
        tree.operatorCodes.append(added)
        known.append(code)
    table = kind.capitalize() + "Options"
    operator = types.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = known.index(code), list(inputs), [output]
    operator.builtinOptionsType = getattr(types.BuiltinOptions, table)
    operator.builtinOptions = getattr(types, f"{table}T")()
    operator.builtinOptions.fusedActivationFunction = activation
    return operator
