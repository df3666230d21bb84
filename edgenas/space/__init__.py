"""Search spaces, and architectures as genes and as parts. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgenas.registry import SPACES
from edgenas.space.base import Architecture, Gene, SearchSpace, Slot
from edgenas.space.check import check_space
from edgenas.space.inverted_residual import Stage
from edgenas.space.mobilenet_v3 import MobileNetV3
from edgenas.space.parts import Part
from edgenas.space.proxyless import ProxylessNAS
from edgenas.space.resnet import ResNet50D


def space_from_dict(data: Mapping[str, Any], where: str) -> SearchSpace:
    """Return a search space from plain data.

    Args:
        data: The fields of a family as from ``to_dict``; ``family`` names it, MobileNetV3 without one.
        where: The file or argument that messages name.

    Raises:
        UsageError: The family or a field is unknown, or a value breaks a rule.
    """
    family = data.get("family", MobileNetV3.family)
    space: SearchSpace = SPACES.load(family, where).from_dict(data, where)
    return space


__all__ = [
    "Architecture",
    "Gene",
    "MobileNetV3",
    "Part",
    "ProxylessNAS",
    "ResNet50D",
    "SearchSpace",
    "Slot",
    "Stage",
    "check_space",
    "space_from_dict",
]
