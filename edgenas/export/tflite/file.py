"""Writing a TFLite file: tensors, operators and weights as a flatbuffer, by the schema in LiteRT's package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import MissingExtraError

Array = npt.NDArray[Any]
Options = Mapping[str, int | bool]
DYNAMIC = -1
_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
_ALIGNMENT = 16  # of the data of a buffer, by the schema


@dataclass(frozen=True)
class Tensor:
    """A tensor. A first size of -1 is an open batch; ``values`` is None for an activation."""

    name: str
    shape: tuple[int, ...]
    values: Array | None = None


@dataclass(frozen=True)
class Operator:
    """A builtin operator.

    Attributes:
        builtin: its name, such as ``CONV_2D``.
        inputs: indices of tensors.
        output: index of a tensor.
        table: name of its options' table in the schema; empty for none.
        options: fields of that table.
    """

    builtin: str
    inputs: tuple[int, ...]
    output: int
    table: str = ""
    options: Options = field(default_factory=dict)


@cache
def schema() -> Any:
    """Return the module of the schema's classes. Raise MissingExtraError when it is not installed."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingExtraError(
            f"TFLite files need LiteRT, which cannot be imported ({error}); pip install 'edgenas[litert]'"
        ) from None
    return schema_py_generated


def write_file(
    tensors: Sequence[Tensor],
    operators: Sequence[Operator],
    source: int,
    result: int,
    metadata: Mapping[str, bytes],
) -> bytes:
    """Return the file of one graph; equal arguments give equal bytes.

    Args:
        tensors: all tensors.
        operators: operators in the order they run.
        source: index of the input tensor.
        result: index of the output tensor.
        metadata: contents of the file's metadata by name.
    """
    import flatbuffers

    constants = [tensor.values for tensor in tensors if tensor.values is not None]
    constants += [np.frombuffer(data, np.uint8) for data in metadata.values()]
    writer = _Writer(flatbuffers.Builder())
    tables = writer.write_model(tensors, operators, source, result, list(metadata), constants)
    return b"".join([tables, *_constant_vectors(constants)])


def _constant_vectors(constants: Sequence[Array]) -> Iterator[bytes | memoryview]:
    """Yield the part of the file behind the tables: the length and the aligned data of each constant."""
    for values in constants:
        yield values.nbytes.to_bytes(4, "little").rjust(_ALIGNMENT, b"\0")
        yield np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data
        yield bytes(-values.nbytes % _ALIGNMENT)


def write_offsets(builder: Any, offsets: Sequence[int]) -> int:
    """Write a vector of offsets with a flatbuffers.Builder and return its own offset."""
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    end: int = builder.EndVector()
    return end


class _Writer:
    """The tables of a flatbuffer, written from end to start: a table is written after all that it points at.

    The data of constants follows the tables in the file: the builder would
    copy all weights three times.
    """

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        self.builder.Prep(_ALIGNMENT, 0)  # makes the length of all tables a multiple of it
        self._shared: dict[Any, int] = {}

    def write_model(
        self,
        tensors: Sequence[Tensor],
        operators: Sequence[Operator],
        source: int,
        result: int,
        metadata: Sequence[str],
        constants: Sequence[Array],
    ) -> bytes:
        buffers = [
            self.write_table("Buffer"),
            *self._write_buffers(constants),
        ]  # the first, empty one is that of activations
        first = len(buffers) - len(metadata)
        metadata_tables = [
            self.write_table("Metadata", Name=self.builder.CreateString(name), Buffer=number)
            for number, name in enumerate(metadata, start=first)
        ]
        builtins = list(dict.fromkeys(operator.builtin for operator in operators))
        root = self.write_table(
            "Model",
            Version=_SCHEMA_VERSION,
            OperatorCodes=write_offsets(self.builder, [self._write_operator_code(builtin) for builtin in builtins]),
            Subgraphs=write_offsets(self.builder, [self._write_graph(tensors, operators, builtins, source, result)]),
            Description=self.builder.CreateString("edgenas"),
            Buffers=write_offsets(self.builder, buffers),
            Metadata=write_offsets(self.builder, metadata_tables),
            SignatureDefs=write_offsets(self.builder, [self._write_signature(tensors, source, result)]),
        )
        self.builder.Finish(root, file_identifier=_IDENTIFIER)
        return bytes(self.builder.Output())

    def write_table(self, name: str, **fields: Any) -> int:
        """Write one table of the schema and return its offset."""
        module, builder = schema(), self.builder
        getattr(module, f"{name}Start")(builder)
        for field_name, value in fields.items():
            getattr(module, f"{name}Add{field_name}")(builder, value)
        offset: int = getattr(module, f"{name}End")(builder)
        return offset

    def write_integers(self, values: Iterable[int]) -> int:
        """Return the offset of a vector of int32; equal ones are written once."""
        key = tuple(values)
        if key not in self._shared:
            self._shared[key] = self.builder.CreateNumpyVector(np.array(key, np.int32))
        return self._shared[key]

    def _write_buffers(self, constants: Sequence[Array]) -> Iterator[int]:
        """Yield a Buffer for each constant, whose offset points behind the tables."""
        position = _ALIGNMENT - 4
        for values in constants:
            schema().BufferStart(self.builder)
            self.builder.Prep(4, 0)
            # An offset counts from its own position; all that the builder has written lies between it and the data.
            self.builder.PrependUint32(self.builder.Offset() + 4 + position)
            self.builder.Slot(0)
            yield schema().BufferEnd(self.builder)
            position += _ALIGNMENT + -(-values.nbytes // _ALIGNMENT) * _ALIGNMENT

    def _write_operator_code(self, builtin: str) -> int:
        code = getattr(schema().BuiltinOperator, builtin)
        # Old readers know only the narrow field, which holds the first 127 operators.
        return self.write_table("OperatorCode", DeprecatedBuiltinCode=min(code, 127), Version=1, BuiltinCode=code)

    def _write_graph(
        self, tensors: Sequence[Tensor], operators: Sequence[Operator], builtins: list[str], source: int, result: int
    ) -> int:
        buffer, offsets = 0, []
        for tensor in tensors:
            buffer += tensor.values is not None
            offsets.append(self._write_tensor(tensor, buffer if tensor.values is not None else 0))
        return self.write_table(
            "SubGraph",
            Tensors=write_offsets(self.builder, offsets),
            Inputs=self.write_integers([source]),
            Outputs=self.write_integers([result]),
            Operators=write_offsets(self.builder, [self._write_operator(operator, builtins) for operator in operators]),
            Name=self.builder.CreateString("main"),
        )

    def _write_tensor(self, tensor: Tensor, buffer: int) -> int:
        types = schema().TensorType
        dynamic = tensor.shape[:1] == (DYNAMIC,)
        fields = {"Name": self.builder.CreateString(tensor.name), "Buffer": buffer, "HasRank": True}
        fields["Shape"] = self.write_integers((1, *tensor.shape[1:]) if dynamic else tensor.shape)
        if dynamic:
            fields["ShapeSignature"] = self.write_integers(tensor.shape)
        integers = tensor.values is not None and tensor.values.dtype == np.int32
        return self.write_table("Tensor", Type=types.INT32 if integers else types.FLOAT32, **fields)

    def _write_operator(self, operator: Operator, builtins: list[str]) -> int:
        fields = {"OpcodeIndex": builtins.index(operator.builtin)}
        if operator.table:
            fields["BuiltinOptionsType"] = getattr(schema().BuiltinOptions, operator.table)
            fields["BuiltinOptions"] = self._write_options(operator.table, operator.options)
        inputs, outputs = self.write_integers(operator.inputs), self.write_integers([operator.output])
        return self.write_table("Operator", Inputs=inputs, Outputs=outputs, **fields)

    def _write_options(self, table: str, options: Options) -> int:
        key = (table, *options.items())
        if key not in self._shared:
            self._shared[key] = self.write_table(table, **options)
        return self._shared[key]

    def _write_signature(self, tensors: Sequence[Tensor], source: int, result: int) -> int:
        """Write the names by which a caller passes the input and gets the output."""
        maps = [
            write_offsets(
                self.builder,
                [
                    self.write_table(
                        "TensorMap", Name=self.builder.CreateString(tensors[number].name), TensorIndex=number
                    )
                ],
            )
            for number in (source, result)
        ]
        key = self.builder.CreateString("serving_default")
        return self.write_table("SignatureDef", Inputs=maps[0], Outputs=maps[1], SignatureKey=key, SubgraphIndex=0)
