"""TFLite Metadata (schema version 1.5.0) of an image classifier: labels and normalisation.

edgenas needs no package with the schema's classes: the few tables of a
classifier are written here by their slots.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgenas.export.tflite.file import write_offsets

METADATA_NAME = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"
_IDENTIFIER = b"M001"
_IMAGE_PROPERTIES, _FEATURE_PROPERTIES = 2, 1  # in union ContentProperties
_NORMALIZATION_OPTIONS = 1  # in union ProcessUnitOptions
_TENSOR_AXIS_LABELS = 2
_RGB = 1


def classifier_metadata(
    names: tuple[str, str], labelled: bool, normalisation: tuple[Sequence[float], Sequence[float]] | None
) -> bytes:
    """Return the metadata of a classifier.

    Args:
        names: names of the input and the output.
        labelled: True if labels.txt is behind the file.
        normalisation: mean and standard deviation of each channel, of pixels from 0 to 255; None leaves it out.
    """
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    colours = _write_table(builder, 2, {}, {0: _RGB})
    image = _write_table(builder, 2, {1: colours}, {0: _IMAGE_PROPERTIES})
    feature = _write_table(builder, 2, {1: _write_table(builder, 1, {})}, {0: _FEATURE_PROPERTIES})
    source = {0: builder.CreateString(names[0]), 3: image}
    result = {0: builder.CreateString(names[1]), 3: feature}
    if normalisation is not None:
        mean, std = (builder.CreateNumpyVector(np.array(values, np.float32)) for values in normalisation)
        options = _write_table(builder, 2, {0: mean, 1: std})
        source[4] = write_offsets(builder, [_write_table(builder, 2, {1: options}, {0: _NORMALIZATION_OPTIONS})])
    if labelled:
        texts = {0: builder.CreateString(LABELS_FILE), 1: builder.CreateString("the name of each class")}
        result[6] = write_offsets(builder, [_write_table(builder, 5, texts, {2: _TENSOR_AXIS_LABELS})])
    inputs = write_offsets(builder, [_write_table(builder, 7, source)])
    outputs = write_offsets(builder, [_write_table(builder, 7, result)])
    graph = _write_table(builder, 10, {2: inputs, 3: outputs})
    model = {
        0: builder.CreateString("edgenas"),
        3: write_offsets(builder, [graph]),
        7: builder.CreateString("1.0.0"),
    }
    builder.Finish(_write_table(builder, 8, model), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _write_table(builder: Any, slots: int, offsets: Mapping[int, int], codes: Mapping[int, int] | None = None) -> int:
    """Write a table of as many slots, with offsets and bytes by slot, and return its offset."""
    builder.StartObject(slots)
    for slot, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    for slot, code in (codes or {}).items():
        builder.PrependUint8Slot(slot, code, 0)
    end: int = builder.EndObject()
    return end


def with_labels(model: bytes, labels: Sequence[str]) -> bytes:
    """Return a TFLite file with labels.txt behind it as an uncompressed zip, where readers of the metadata look.

    Quantization drops the labels, so that they must be added again.
    """
    buffer = io.BytesIO(model)
    text = "".join(f"{label}\n" for label in labels)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(LABELS_FILE), text.encode())
    return buffer.getvalue()


def has_other_labels(model: bytes, labels: Sequence[str]) -> bool:
    """Return True if the bytes behind a TFLite file are not what ``with_labels`` writes there for these labels."""
    if not zipfile.is_zipfile(io.BytesIO(model)):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            start = min((member.header_offset for member in archive.infolist()), default=0)
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return True
    return with_labels(model[:start], labels) != model
