"""A bundle: the folder that is deployed, with everything needed to run the model and to verify it."""

from __future__ import annotations

from edgenas.bundle.bundle import Bundle, check_replaceable, open_bundle, write_bundle
from edgenas.bundle.check import VerifiedBundle
from edgenas.bundle.model_file import ModelInterface, TensorSpec, parse_model_interface, run_model

__all__ = [
    "Bundle",
    "ModelInterface",
    "TensorSpec",
    "VerifiedBundle",
    "check_replaceable",
    "open_bundle",
    "parse_model_interface",
    "run_model",
    "write_bundle",
]
