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
    "connect": "edgenas.devices",
    "Measurement": "edgenas.profilers",
    "Rounds": "edgenas.profilers",
    "LatencyTable": "edgenas.profilers",
    "measure": "edgenas.profilers",
    "Front": "edgenas.search",
    "Bundle": "edgenas.export",
    "Kind": "edgenas.export",
    "record": "edgenas.regression",
    "check": "edgenas.regression",
    "Run": "edgenas.pipeline",
    "EdgeNASError": "edgenas.errors",
}
__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from edgenas.bundle import Bundle as Bundle
    from edgenas.costs import Budget as Budget
    from edgenas.devices import Target as Target
    from edgenas.devices import connect as connect
    from edgenas.devices import load_profile as load_profile
    from edgenas.errors import EdgeNASError as EdgeNASError
    from edgenas.export import Kind as Kind
    from edgenas.ofa import Supernet as Supernet
    from edgenas.ofa import load_released as load_released
    from edgenas.pipeline import Run as Run
    from edgenas.profilers import LatencyTable as LatencyTable
    from edgenas.profilers import Measurement as Measurement
    from edgenas.profilers import Rounds as Rounds
    from edgenas.profilers.measure.batch import measure as measure
    from edgenas.regression import check as check
    from edgenas.regression import record as record
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
