"""Signatures: types and shapes of a file's inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgenas.runtimes import ModelSignature, load_runtime


def test_an_onnx_file_says_types_and_shapes(make_onnx: Callable[..., Path]) -> None:
    """Open sizes are question marks, so is an unknown rank; stored tensors are no inputs."""
    path = make_onnx({"image": ("FLOAT", ("n", 3, 8, 8)), "ids": ("INT64", ()), "any": ("STRING", None)})
    assert load_runtime("onnxruntime").read_signature(path.read_bytes()) == ModelSignature(
        ("float ?x3x8x8", "int64 scalar", "string ?"), ("float ?x3x8x8",)
    )


def test_a_tflite_file_says_types_and_shapes(make_relu: Callable[..., Path]) -> None:
    """As ONNX; the signature has the open sizes."""
    runtime = load_runtime("litert")
    assert runtime.read_signature(make_relu([1, 4, 4, 3]).read_bytes()) == ModelSignature(
        ("float32 1x4x4x3",), ("float32 1x4x4x3",)
    )


@pytest.mark.parametrize("name", ["onnxruntime", "litert"])
def test_a_damaged_file_has_no_signature(name: str) -> None:
    """The runtime on the device refuses it."""
    assert load_runtime(name).read_signature(b"this is no model") is None
