"""Hardware-aware neural architecture search for edge deployment.

The public names are loaded on first use: ``import edgenas`` itself imports
neither torch nor any other heavy library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgenas.version import __version__ as __version__

_MODULES = {
    "AccuracyPredictor": "edgenas.accuracy",
    "Architecture": "edgenas.space",
    "Baseline": "edgenas.regression",
    "Budget": "edgenas.costs",
    "Bundle": "edgenas.bundle",
    "CheckResult": "edgenas.pipeline.device_check",
    "Choice": "edgenas.pipeline.choice",
    "Deployment": "edgenas.pipeline.choice",
    "Device": "edgenas.devices",
    "DeviceProfile": "edgenas.devices",
    "EdgeNASError": "edgenas.errors",
    "EvaluationStore": "edgenas.search",
    "Explanation": "edgenas.pipeline.explain",
    "ExportFormat": "edgenas.runtimes",
    "ExportSettings": "edgenas.pipeline.prepared_model",
    "ExportedBundle": "edgenas.pipeline.export",
    "FinetunedSubnet": "edgenas.pipeline.finetuned",
    "Front": "edgenas.search",
    "HoldoutReport": "edgenas.profilers",
    "LatencyTable": "edgenas.profilers",
    "MeasureSettings": "edgenas.profilers",
    "MeasuredModels": "edgenas.profilers",
    "MeasuredSubnet": "edgenas.pipeline.choice",
    "MeasuredTable": "edgenas.search",
    "Measurement": "edgenas.profilers",
    "MeasurementResult": "edgenas.profilers",
    "MeasuringRounds": "edgenas.profilers",
    "MeasuringSession": "edgenas.profilers",
    "MobileNetV3": "edgenas.space",
    "ModelCheck": "edgenas.regression",
    "ModelInputs": "edgenas.profilers",
    "OperatorComparison": "edgenas.regression",
    "OperatorProfile": "edgenas.profilers",
    "PartLatency": "edgenas.pipeline.explain",
    "Prediction": "edgenas.pipeline.choice",
    "Problem": "edgenas.search",
    "Progress": "edgenas.pipeline.progress",
    "ProxylessNAS": "edgenas.space",
    "RankedModel": "edgenas.profilers",
    "RejectedCandidate": "edgenas.pipeline.choice",
    "ReleasedPredictor": "edgenas.accuracy",
    "ResNet50D": "edgenas.space",
    "Run": "edgenas.pipeline",
    "Schedule": "edgenas.ofa",
    "SearchSpace": "edgenas.space",
    "Stage": "edgenas.space",
    "Supernet": "edgenas.ofa",
    "TableCheck": "edgenas.pipeline.check_table",
    "Target": "edgenas.devices",
    "Validity": "edgenas.profilers",
    "VerificationReport": "edgenas.pipeline.verify_bundle",
    "VerifiedBundle": "edgenas.bundle",
    "check_device": "edgenas.pipeline.device_check",
    "check_model": "edgenas.regression",
    "compare_operators": "edgenas.regression",
    "compare_results": "edgenas.profilers",
    "connect_device": "edgenas.devices",
    "create_profile": "edgenas.pipeline.device_setup",
    "import_tables": "edgenas.pipeline.import_tables",
    "import_weights": "edgenas.pipeline.import_weights",
    "load_profile": "edgenas.devices",
    "load_released": "edgenas.ofa",
    "measure_model": "edgenas.profilers",
    "measure_models": "edgenas.profilers",
    "profile_operators": "edgenas.profilers",
    "record_baseline": "edgenas.regression",
    "search_front": "edgenas.search",
    "set_up_device": "edgenas.pipeline.device_setup",
    "verify_bundle": "edgenas.pipeline.verify_bundle",
}
__all__ = sorted(_MODULES)

if TYPE_CHECKING:
    from edgenas.accuracy import AccuracyPredictor as AccuracyPredictor
    from edgenas.accuracy import ReleasedPredictor as ReleasedPredictor
    from edgenas.bundle import Bundle as Bundle
    from edgenas.bundle import VerifiedBundle as VerifiedBundle
    from edgenas.costs import Budget as Budget
    from edgenas.devices import Device as Device
    from edgenas.devices import DeviceProfile as DeviceProfile
    from edgenas.devices import Target as Target
    from edgenas.devices import connect_device as connect_device
    from edgenas.devices import load_profile as load_profile
    from edgenas.errors import EdgeNASError as EdgeNASError
    from edgenas.ofa import Schedule as Schedule
    from edgenas.ofa import Supernet as Supernet
    from edgenas.ofa import load_released as load_released
    from edgenas.pipeline import Run as Run
    from edgenas.pipeline.check_table import TableCheck as TableCheck
    from edgenas.pipeline.choice import Choice as Choice
    from edgenas.pipeline.choice import Deployment as Deployment
    from edgenas.pipeline.choice import MeasuredSubnet as MeasuredSubnet
    from edgenas.pipeline.choice import Prediction as Prediction
    from edgenas.pipeline.choice import RejectedCandidate as RejectedCandidate
    from edgenas.pipeline.device_check import CheckResult as CheckResult
    from edgenas.pipeline.device_check import check_device as check_device
    from edgenas.pipeline.device_setup import create_profile as create_profile
    from edgenas.pipeline.device_setup import set_up_device as set_up_device
    from edgenas.pipeline.explain import Explanation as Explanation
    from edgenas.pipeline.explain import PartLatency as PartLatency
    from edgenas.pipeline.export import ExportedBundle as ExportedBundle
    from edgenas.pipeline.finetuned import FinetunedSubnet as FinetunedSubnet
    from edgenas.pipeline.import_tables import import_tables as import_tables
    from edgenas.pipeline.import_weights import import_weights as import_weights
    from edgenas.pipeline.prepared_model import ExportSettings as ExportSettings
    from edgenas.pipeline.progress import Progress as Progress
    from edgenas.pipeline.verify_bundle import VerificationReport as VerificationReport
    from edgenas.pipeline.verify_bundle import verify_bundle as verify_bundle
    from edgenas.profilers import HoldoutReport as HoldoutReport
    from edgenas.profilers import LatencyTable as LatencyTable
    from edgenas.profilers import MeasuredModels as MeasuredModels
    from edgenas.profilers import Measurement as Measurement
    from edgenas.profilers import MeasurementResult as MeasurementResult
    from edgenas.profilers import MeasureSettings as MeasureSettings
    from edgenas.profilers import MeasuringRounds as MeasuringRounds
    from edgenas.profilers import MeasuringSession as MeasuringSession
    from edgenas.profilers import ModelInputs as ModelInputs
    from edgenas.profilers import OperatorProfile as OperatorProfile
    from edgenas.profilers import RankedModel as RankedModel
    from edgenas.profilers import Validity as Validity
    from edgenas.profilers import compare_results as compare_results
    from edgenas.profilers import measure_model as measure_model
    from edgenas.profilers import measure_models as measure_models
    from edgenas.profilers import profile_operators as profile_operators
    from edgenas.regression import Baseline as Baseline
    from edgenas.regression import ModelCheck as ModelCheck
    from edgenas.regression import OperatorComparison as OperatorComparison
    from edgenas.regression import check_model as check_model
    from edgenas.regression import compare_operators as compare_operators
    from edgenas.regression import record_baseline as record_baseline
    from edgenas.runtimes import ExportFormat as ExportFormat
    from edgenas.search import EvaluationStore as EvaluationStore
    from edgenas.search import Front as Front
    from edgenas.search import MeasuredTable as MeasuredTable
    from edgenas.search import Problem as Problem
    from edgenas.search import search_front as search_front
    from edgenas.space import Architecture as Architecture
    from edgenas.space import MobileNetV3 as MobileNetV3
    from edgenas.space import ProxylessNAS as ProxylessNAS
    from edgenas.space import ResNet50D as ResNet50D
    from edgenas.space import SearchSpace as SearchSpace
    from edgenas.space import Stage as Stage


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'edgenas' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
