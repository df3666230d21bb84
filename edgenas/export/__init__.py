"""Model files written from an architecture and its weights, and checked against PyTorch."""

from __future__ import annotations

from edgenas.export.onnx.weights import random_weights
from edgenas.export.onnx.writer import build_onnx
from edgenas.export.parity import (
    PARITY_LIMITS,
    ParityLimits,
    ParityResult,
    check_onnx,
    check_parity,
    compare_logits,
    run_onnx,
    top1_accuracy,
)
from edgenas.export.tflite.interpreter import run_tflite
from edgenas.export.torch_module import onnx_from_module, tflite_from_module

__all__ = [
    "PARITY_LIMITS",
    "ParityLimits",
    "ParityResult",
    "build_onnx",
    "check_onnx",
    "check_parity",
    "compare_logits",
    "onnx_from_module",
    "random_weights",
    "run_onnx",
    "run_tflite",
    "tflite_from_module",
    "top1_accuracy",
]
