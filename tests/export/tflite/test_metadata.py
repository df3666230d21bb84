"""Labels and normalisation in a TFLite file, where MediaPipe and ML Kit look for them."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from flatbuffers import encode, number_types, packer
from flatbuffers.table import Table

from edgenas.errors import UsageError
from edgenas.export import build_onnx, random_weights, run_onnx
from edgenas.export.tflite.file import schema
from edgenas.export.tflite.interpreter import run_tflite
from edgenas.export.tflite.metadata import with_labels
from edgenas.export.tflite.writer import build_tflite
from edgenas.space import MobileNetV3

LABELS = [f"digit {number}" for number in range(9)] + ["neun, größer"]
NORMALISATION = ([127.5, 120.0, 110.0], [60.0, 61.0, 62.0])


@pytest.fixture(scope="module")
def model(small_space: MobileNetV3) -> bytes:
    return build_onnx(small_space.smallest, random_weights(small_space.smallest))


def _metadata(file: bytes) -> Table:
    """The root of the metadata in a file, whose identifier is that of the schema."""
    model = schema().Model.GetRootAs(file)
    (entry,) = [model.Metadata(number) for number in range(model.MetadataLength())]
    assert entry.Name() == b"TFLITE_METADATA"
    data = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
    assert data[4:8] == b"M001"
    return Table(data, encode.Get(packer.uoffset, data, 0))


def _field(table: Table, slot: int) -> int:
    offset = int(table.Offset(4 + 2 * slot))
    assert offset, f"slot {slot} is empty"
    return int(table.Pos) + offset


def _child(table: Table, slot: int) -> Table:
    return Table(table.Bytes, table.Indirect(_field(table, slot)))


def _first(table: Table, slot: int) -> Table:
    """The only table of a vector of tables."""
    offset = _field(table, slot) - table.Pos
    assert table.VectorLen(offset) == 1
    return Table(table.Bytes, table.Indirect(table.Vector(offset)))


def _text(table: Table, slot: int) -> str:
    return str(table.String(_field(table, slot)).decode())


def _code(table: Table, slot: int) -> int:
    return int(table.Get(number_types.Uint8Flags, _field(table, slot)))


def _floats(table: Table, slot: int) -> list[float]:
    values = table.GetVectorAsNumpy(number_types.Float32Flags, _field(table, slot) - table.Pos)
    return [float(value) for value in values]


def test_labels_are_a_file_behind_the_model(model: bytes) -> None:
    """Any unzip finds labels.txt, uncompressed, one label a line; LiteRT does not mind."""
    file = build_tflite(model, labels=LABELS)
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode().splitlines() == LABELS
        assert archive.getinfo("labels.txt").compress_type == zipfile.ZIP_STORED
    images = np.random.default_rng(0).standard_normal((2, 3, 24, 24), dtype=np.float32)
    np.testing.assert_allclose(run_tflite(file, images), run_onnx(model, images), rtol=1e-4, atol=1e-5)


def test_metadata_says_that_the_output_has_labels(model: bytes) -> None:
    """By the slots of the published schema: the output tensor's associated file is labels.txt, of an axis."""
    root = _metadata(build_tflite(model, labels=LABELS))
    assert _text(root, 7) == "1.0.0"  # min_parser_version
    graph = _first(root, 3)  # subgraph_metadata
    entry, result = _first(graph, 2), _first(graph, 3)  # input and output tensor_metadata
    assert (_text(entry, 0), _text(result, 0)) == ("input", "logits")
    labels = _first(result, 6)  # associated_files
    assert (_text(labels, 0), _code(labels, 2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS
    content = _child(entry, 3)
    assert _code(content, 0) == 2  # ImageProperties
    assert _code(_child(content, 1), 0) == 1  # RGB


def test_metadata_says_how_pixels_are_normalised(model: bytes) -> None:
    """Mean and standard deviation of each channel are a process unit of the input."""
    root = _metadata(build_tflite(model, labels=LABELS, normalisation=NORMALISATION))
    unit = _first(_first(_first(root, 3), 2), 4)
    assert _code(unit, 0) == 1  # NormalizationOptions
    assert (_floats(_child(unit, 1), 0), _floats(_child(unit, 1), 1)) == NORMALISATION


def test_a_file_without_labels_has_no_metadata(model: bytes) -> None:
    """Nothing is claimed that nobody said."""
    file = build_tflite(model)
    assert schema().Model.GetRootAs(file).MetadataLength() == 0
    assert not zipfile.is_zipfile(io.BytesIO(file))


def test_labels_can_be_put_behind_a_file_again(model: bytes) -> None:
    """A tool that rewrites the model drops what is behind it; then the same call gives the same file."""
    file = build_tflite(model, labels=LABELS)
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        bare = file[: archive.infolist()[0].header_offset]
    assert with_labels(bare, LABELS) == file


def test_equal_labels_give_equal_bytes(model: bytes) -> None:
    """Neither the clock nor the user leaves a trace in the archive."""
    assert build_tflite(model, labels=LABELS) == build_tflite(model, labels=tuple(LABELS))


def test_normalisation_needs_no_labels(model: bytes) -> None:
    """It is written alone too, and then nothing is said of a labels.txt."""
    file = build_tflite(model, normalisation=NORMALISATION)
    graph = _first(_metadata(file), 3)
    assert _code(_first(_first(graph, 2), 4), 0) == 1
    assert _first(graph, 3).Offset(4 + 2 * 6) == 0
    assert not zipfile.is_zipfile(io.BytesIO(file))


@pytest.mark.parametrize(
    ("labels", "rule"), [(LABELS[:9], "9 for 10 classes"), ([*LABELS[:9], "two\nlines"], "one line")]
)
def test_labels_that_cannot_be_are_refused(model: bytes, labels: list[str], rule: str) -> None:
    """One label a class, one line a label."""
    with pytest.raises(UsageError, match=rule):
        build_tflite(model, labels=labels)
