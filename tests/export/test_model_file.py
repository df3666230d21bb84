"""A model file in memory that is read once."""

from __future__ import annotations

import gc
import pickle
import weakref

import pytest

from edgenas.export import build_onnx, random_weights
from edgenas.export.model_file import ModelFile
from edgenas.export.onnx.session import OnnxFile
from edgenas.export.tflite.layers import TFLiteFile
from edgenas.export.tflite.writer import build_tflite
from edgenas.space import MobileNetV3


@pytest.mark.parametrize("kind", [OnnxFile, TFLiteFile])
def test_a_file_of_a_file_is_itself(kind: type[ModelFile]) -> None:
    """What a file keeps is not lost where another function asks for a file; the bytes are those that were given."""
    file = kind(b"bytes")
    assert kind(file) is file
    assert (file, type(file.plain)) == (b"bytes", bytes)


def test_what_was_read_is_kept(small_space: MobileNetV3) -> None:
    """A graph and a session are those of the first time."""
    onnx_file = build_onnx(small_space.smallest, random_weights(small_space.smallest))
    tflite_file = TFLiteFile(build_tflite(onnx_file))
    assert onnx_file.proto is onnx_file.proto
    assert onnx_file.session is onnx_file.session
    assert tflite_file.operations is tflite_file.operations
    assert tflite_file.interpreter is tflite_file.interpreter


def test_another_process_gets_the_bytes(small_space: MobileNetV3) -> None:
    """A file can be sent to a worker after it was run, though its session cannot."""
    file = build_onnx(small_space.smallest, random_weights(small_space.smallest))
    assert file.session
    received = pickle.loads(pickle.dumps(file))  # noqa: S301 - written in the same line
    assert (type(received), received) == (OnnxFile, file)
    assert "session" not in vars(received)


def test_sessions_are_freed_with_their_file(small_space: MobileNetV3) -> None:
    """No cycle holds them until the next garbage collection: a search tries many files."""
    onnx_file = OnnxFile(build_onnx(small_space.smallest, random_weights(small_space.smallest)))
    tflite_file = TFLiteFile(build_tflite(onnx_file))
    assert tflite_file.operations
    sessions = [weakref.ref(onnx_file.session), weakref.ref(tflite_file.interpreter)]
    gc.disable()
    try:
        del onnx_file, tflite_file
        assert [session() for session in sessions] == [None, None]
    finally:
        gc.enable()
