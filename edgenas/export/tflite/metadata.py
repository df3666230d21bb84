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

    writer = _Writer(flatbuffers.Builder(1024))
    image = writer.table(2, {1: writer.table(2, {}, {0: _RGB})}, {0: _IMAGE_PROPERTIES})
    feature = writer.table(2, {1: writer.table(1, {})}, {0: _FEATURE_PROPERTIES})
    source, result = {0: writer.text(names[0]), 3: image}, {0: writer.text(names[1]), 3: feature}
    if normalisation is not None:
        mean, std = (writer.floats(values) for values in normalisation)
        unit = writer.table(2, {1: writer.table(2, {0: mean, 1: std})}, {0: _NORMALIZATION_OPTIONS})
        source[4] = writer.offsets([unit])
    if labelled:
        texts = {0: writer.text(LABELS_FILE), 1: writer.text("the name of each class")}
        result[6] = writer.offsets([writer.table(5, texts, {2: _TENSOR_AXIS_LABELS})])
    graph = writer.table(
        10, {2: writer.offsets([writer.table(7, source)]), 3: writer.offsets([writer.table(7, result)])}
    )
    model = {0: writer.text("edgenas"), 3: writer.offsets([graph]), 7: writer.text("1.0.0")}
    writer.builder.Finish(writer.table(8, model), file_identifier=_IDENTIFIER)
    return bytes(writer.builder.Output())


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


class _Writer:
    """The tables of a flatbuffer, by the numbers of their slots."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def table(self, slots: int, offsets: Mapping[int, int], codes: Mapping[int, int] | None = None) -> int:
        self.builder.StartObject(slots)
        for slot, offset in offsets.items():
            self.builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
        for slot, code in (codes or {}).items():
            self.builder.PrependUint8Slot(slot, code, 0)
        end: int = self.builder.EndObject()
        return end

    def text(self, text: str) -> int:
        offset: int = self.builder.CreateString(text)
        return offset

    def floats(self, values: Sequence[float]) -> int:
        offset: int = self.builder.CreateNumpyVector(np.array(values, np.float32))
        return offset

    def offsets(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        end: int = self.builder.EndVector()
        return end
