"""Search spaces, architectures, genes and parts. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgenas.errors import UsageError
from edgenas.files import nearest
from edgenas.space.base import Architecture, Gene, SearchSpace, Slot
from edgenas.space.mobilenet_v3 import MobileNetV3, Stage
from edgenas.space.parts import Part

FAMILIES = {MobileNetV3.family: MobileNetV3}


def space_from_dict(data: Mapping[str, Any], where: str) -> SearchSpace:
    """A space from plain data; ``family`` says which. Raises UsageError naming ``where``."""
    family = data.get("family", MobileNetV3.family)
    if not isinstance(family, str) or family not in FAMILIES:
        raise UsageError(f"{where}: unknown family {family!r}{nearest(str(family), sorted(FAMILIES))}")
    return FAMILIES[family].from_dict(data, where)


__all__ = ["Architecture", "Gene", "MobileNetV3", "Part", "SearchSpace", "Slot", "Stage", "space_from_dict"]
