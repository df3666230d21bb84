"""The TFLite file: tensors, operators and weights as a flatbuffer, by the schema that LiteRT ships."""

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
_ALIGNMENT = 16  # what the schema forces on the data of a buffer


@dataclass(frozen=True)
class Tensor:
    """A tensor; -1 as the first size of ``shape`` stands for any batch. ``values`` is None for an activation."""

    name: str
    shape: tuple[int, ...]
    values: Array | None = None


@dataclass(frozen=True)
class Operator:
    """A built-in operator, its tensors by number, and its options: a table of the schema and its fields."""

    kind: str
    inputs: tuple[int, ...]
    output: int
    table: str = ""
    options: Options = field(default_factory=dict)


@cache
def schema() -> Any:
    """The schema's classes. Raises MissingExtraError where they are not installed."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingExtraError(
            f"writing TFLite needs LiteRT's schema, which cannot be imported ({error}); pip install 'edgenas[litert]'"
        ) from None
    return schema_py_generated


def write_file(
    tensors: Sequence[Tensor],
    operators: Sequence[Operator],
    entry: int,
    result: int,
    metadata: Mapping[str, bytes],
) -> bytes:
    """The file of one graph with the input tensor ``entry`` and the output ``result``; equal arguments, equal bytes."""
    import flatbuffers

    constants = [tensor.values for tensor in tensors if tensor.values is not None]
    constants += [np.frombuffer(data, np.uint8) for data in metadata.values()]
    writer = _Writer(flatbuffers.Builder())
    tables = writer.model(tensors, operators, entry, result, list(metadata), constants)
    return b"".join([tables, *_vectors(constants)])


def _vectors(constants: Sequence[Array]) -> Iterator[bytes | memoryview]:
    """What follows the tables: each constant as a vector of bytes, its length before it, its data aligned."""
    for values in constants:
        yield values.nbytes.to_bytes(4, "little").rjust(_ALIGNMENT, b"\0")
        yield np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data
        yield bytes(-values.nbytes % _ALIGNMENT)


class _Writer:
    """The tables of a flatbuffer as they grow, from end to start: what is pointed at comes before what points.

    The data of constants is not among them but follows them in the file: going
    through the builder would copy all weights three times.
    """

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        self.builder.Prep(_ALIGNMENT, 0)  # the tables' length becomes a multiple of this
        self._shared: dict[Any, int] = {}

    def model(
        self,
        tensors: Sequence[Tensor],
        operators: Sequence[Operator],
        entry: int,
        result: int,
        metadata: Sequence[str],
        constants: Sequence[Array],
    ) -> bytes:
        buffers = [self.table("Buffer"), *self._buffers(constants)]  # the first is empty: that of all activations
        first = len(buffers) - len(metadata)
        facts = [
            self.table("Metadata", Name=self.text(name), Buffer=number)
            for number, name in enumerate(metadata, start=first)
        ]
        kinds = list(dict.fromkeys(operator.kind for operator in operators))
        root = self.table(
            "Model",
            Version=_SCHEMA_VERSION,
            OperatorCodes=self.offsets([self._code(kind) for kind in kinds]),
            Subgraphs=self.offsets([self._graph(tensors, operators, kinds, entry, result)]),
            Description=self.text("edgenas"),
            Buffers=self.offsets(buffers),
            Metadata=self.offsets(facts),
            SignatureDefs=self.offsets([self._signature(tensors, entry, result)]),
        )
        self.builder.Finish(root, file_identifier=_IDENTIFIER)
        return bytes(self.builder.Output())

    def table(self, kind: str, **fields: Any) -> int:
        """Write one table of the schema and return its offset."""
        module, builder = schema(), self.builder
        getattr(module, f"{kind}Start")(builder)
        for name, value in fields.items():
            getattr(module, f"{kind}Add{name}")(builder, value)
        offset: int = getattr(module, f"{kind}End")(builder)
        return offset

    def text(self, text: str) -> int:
        offset: int = self.builder.CreateString(text)
        return offset

    def offsets(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        end: int = self.builder.EndVector()
        return end

    def integers(self, values: Iterable[int]) -> int:
        """A vector of int32; equal ones are written once."""
        key = tuple(values)
        if key not in self._shared:
            self._shared[key] = self.builder.CreateNumpyVector(np.array(key, np.int32))
        return self._shared[key]

    def _buffers(self, constants: Sequence[Array]) -> Iterator[int]:
        """Tables Buffer that point behind the tables, at the vectors there."""
        place = _ALIGNMENT - 4
        for values in constants:
            schema().BufferStart(self.builder)
            self.builder.Prep(4, 0)
            # An offset counts from itself, and what the builder has written lies between it and the vectors.
            self.builder.PrependUint32(self.builder.Offset() + 4 + place)
            self.builder.Slot(0)
            yield schema().BufferEnd(self.builder)
            place += _ALIGNMENT + -(-values.nbytes // _ALIGNMENT) * _ALIGNMENT

    def _code(self, kind: str) -> int:
        code = getattr(schema().BuiltinOperator, kind)
        # Readers older than the wider field look at the narrow one, which holds the first 127 operators.
        return self.table("OperatorCode", DeprecatedBuiltinCode=min(code, 127), Version=1, BuiltinCode=code)

    def _graph(
        self, tensors: Sequence[Tensor], operators: Sequence[Operator], kinds: list[str], entry: int, result: int
    ) -> int:
        buffer, written = 0, []
        for tensor in tensors:
            buffer += tensor.values is not None
            written.append(self._tensor(tensor, buffer if tensor.values is not None else 0))
        return self.table(
            "SubGraph",
            Tensors=self.offsets(written),
            Inputs=self.integers([entry]),
            Outputs=self.integers([result]),
            Operators=self.offsets([self._operator(operator, kinds) for operator in operators]),
            Name=self.text("main"),
        )

    def _tensor(self, tensor: Tensor, buffer: int) -> int:
        module = schema()
        dynamic = tensor.shape[:1] == (DYNAMIC,)
        fields = {"Name": self.text(tensor.name), "Buffer": buffer, "HasRank": True}
        fields["Shape"] = self.integers((1, *tensor.shape[1:]) if dynamic else tensor.shape)
        if dynamic:
            fields["ShapeSignature"] = self.integers(tensor.shape)
        integers = tensor.values is not None and tensor.values.dtype == np.int32
        return self.table("Tensor", Type=module.TensorType.INT32 if integers else module.TensorType.FLOAT32, **fields)

    def _operator(self, operator: Operator, kinds: list[str]) -> int:
        fields = {"OpcodeIndex": kinds.index(operator.kind)}
        if operator.table:
            fields["BuiltinOptionsType"] = getattr(schema().BuiltinOptions, operator.table)
            fields["BuiltinOptions"] = self._options(operator.table, operator.options)
        inputs, outputs = self.integers(operator.inputs), self.integers([operator.output])
        return self.table("Operator", Inputs=inputs, Outputs=outputs, **fields)

    def _options(self, table: str, options: Options) -> int:
        key = (table, *options.items())
        if key not in self._shared:
            self._shared[key] = self.table(table, **options)
        return self._shared[key]

    def _signature(self, tensors: Sequence[Tensor], entry: int, result: int) -> int:
        """The names by which a caller passes the input and gets the output."""
        maps = [
            self.offsets([self.table("TensorMap", Name=self.text(tensors[number].name), TensorIndex=number)])
            for number in (entry, result)
        ]
        key = self.text("serving_default")
        return self.table("SignatureDef", Inputs=maps[0], Outputs=maps[1], SignatureKey=key, SubgraphIndex=0)
