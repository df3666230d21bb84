"""Model files: written from parts and weights, proven against the network, bundled for deployment."""

from __future__ import annotations

from edgenas.export.bundle import Bundle, check_replaceable, open_bundle, write_bundle
from edgenas.export.bundle_check import Verified
from edgenas.export.bundle_model import Interface, Port, read_interface, run_model
from edgenas.export.formats import Kind
from edgenas.export.litert import run_tflite
from edgenas.export.onnx import build_onnx
from edgenas.export.routes import onnx_from_module, tflite_from_module
from edgenas.export.verify import LIMITS, Agreement, Limits, accuracy, agree, check_onnx, compare, run_onnx
from edgenas.export.weights import random_weights

__all__ = [
    "LIMITS",
    "Agreement",
    "Bundle",
    "Interface",
    "Kind",
    "Limits",
    "Port",
    "Verified",
    "accuracy",
    "agree",
    "build_onnx",
    "check_onnx",
    "check_replaceable",
    "compare",
    "onnx_from_module",
    "open_bundle",
    "random_weights",
    "read_interface",
    "run_model",
    "run_onnx",
    "run_tflite",
    "tflite_from_module",
    "write_bundle",
]
