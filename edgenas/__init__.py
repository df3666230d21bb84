"""Hardware-aware neural architecture search for edge deployment.

The public names are loaded on first use: ``import edgenas`` itself imports
neither torch nor any other heavy library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgenas.version import __version__ as __version__

_HOMES = {
    "Architecture": "edgenas.space",
    "MobileNetV3": "edgenas.space",
    "ProxylessNAS": "edgenas.space",
    "ResNet50D": "edgenas.space",
    "Budget": "edgenas.costs",
    "Supernet": "edgenas.ofa",
    "load_released": "edgenas.ofa",
    "Target": "edgenas.devices",
    "load_profile": "edgenas.devices",
    "connect_device": "edgenas.devices",
    "Measurement": "edgenas.profilers",
    "MeasurementResult": "edgenas.profilers",
    "LatencyTable": "edgenas.profilers",
    "measure_model": "edgenas.profilers",
    "measure_models": "edgenas.profilers",
    "Front": "edgenas.search",
    "Bundle": "edgenas.bundle",
    "ExportFormat": "edgenas.export",
    "record_baseline": "edgenas.regression",
    "check_latency": "edgenas.regression",
    "Run": "edgenas.pipeline",
    "EdgeNASError": "edgenas.errors",
}
__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from edgenas.bundle import Bundle as Bundle
    from edgenas.costs import Budget as Budget
    from edgenas.devices import Target as Target
    from edgenas.devices import connect_device as connect_device
    from edgenas.devices import load_profile as load_profile
    from edgenas.errors import EdgeNASError as EdgeNASError
    from edgenas.export import ExportFormat as ExportFormat
    from edgenas.ofa import Supernet as Supernet
    from edgenas.ofa import load_released as load_released
    from edgenas.pipeline import Run as Run
    from edgenas.profilers import LatencyTable as LatencyTable
    from edgenas.profilers import Measurement as Measurement
    from edgenas.profilers import MeasurementResult as MeasurementResult
    from edgenas.profilers import measure_model as measure_model
    from edgenas.profilers import measure_models as measure_models
    from edgenas.regression import check_latency as check_latency
    from edgenas.regression import record_baseline as record_baseline
    from edgenas.search import Front as Front
    from edgenas.space import Architecture as Architecture
    from edgenas.space import MobileNetV3 as MobileNetV3
    from edgenas.space import ProxylessNAS as ProxylessNAS
    from edgenas.space import ResNet50D as ResNet50D


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'edgenas' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
