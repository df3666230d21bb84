"""Model files written from an architecture and its weights, and checked against PyTorch."""

from __future__ import annotations

from edgenas.export.formats import ExportFormat
from edgenas.export.onnx.weights import random_weights
from edgenas.export.onnx.writer import build_onnx
from edgenas.export.parity import LIMITS, Agreement, Limits, accuracy, agree, check_onnx, compare, run_onnx
from edgenas.export.tflite.interpreter import run_tflite
from edgenas.export.torch_module import onnx_from_module, tflite_from_module

__all__ = [
    "LIMITS",
    "Agreement",
    "ExportFormat",
    "Limits",
    "accuracy",
    "agree",
    "build_onnx",
    "check_onnx",
    "compare",
    "onnx_from_module",
    "random_weights",
    "run_onnx",
    "run_tflite",
    "tflite_from_module",
]
