"""Model files: written from parts and weights, proven against the network, bundled for deployment."""

from __future__ import annotations

from edgenas.export.bundle import Bundle, write_bundle
from edgenas.export.onnx import build_onnx
from edgenas.export.verify import Agreement, accuracy, check_onnx, compare, run_onnx
from edgenas.export.weights import random_weights

__all__ = [
    "Agreement",
    "Bundle",
    "accuracy",
    "build_onnx",
    "check_onnx",
    "compare",
    "random_weights",
    "run_onnx",
    "write_bundle",
]
