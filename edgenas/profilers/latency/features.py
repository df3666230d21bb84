"""Features that explain the cost of a part: calls, work, traffic and weights of its operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgenas.costs import Vector
from edgenas.space import Part
from edgenas.space.parts import macs


def part_features(parts: Sequence[Part]) -> Vector:
    """Return non-negative features (P, F), separate for each operator; a part costs about a weighted sum of them."""
    rows = [_FEATURES[part.operator](part) for part in parts]
    names = sorted({name for row in rows for name in row})
    return np.array([[row.get(name, 0.0) for name in names] for row in rows], dtype=np.float64)


def plain_features(parts: Sequence[Part]) -> Vector:
    """Return calls, multiply-accumulates and values read or written (P, 3), the same for all operators."""
    return np.array([[1.0, macs(part), _values_read_or_written(part)] for part in parts])


def _values_read_or_written(part: Part) -> float:
    """Return the number of values that a part reads or writes."""
    before, after = part.in_size**2, part.out_size**2
    inner = part.mid_channels * (before * part.expand + after)
    return before * part.in_channels + after * part.out_channels + inner


def _dense_feature_dict(part: Part) -> dict[str, float]:
    work = part.out_size**2 * part.out_channels * part.in_channels * part.kernel**2
    traffic = part.in_size**2 * part.in_channels + part.out_size**2 * part.out_channels
    return {f"{part.operator} calls": 1, f"{part.operator} work": work, f"{part.operator} traffic": traffic}


def _mbconv_feature_dict(part: Part) -> dict[str, float]:
    before, after, mid = part.in_size**2, part.out_size**2, part.mid_channels
    gated = part.se_channels > 0
    return {
        "mbconv calls": 1,
        "expand work": before * part.in_channels * mid * part.expand,
        f"depthwise {part.kernel} work": after * mid * part.kernel**2,
        f"depthwise {part.kernel} channels": mid,
        "project work": after * mid * part.out_channels,
        "before traffic": before * mid * part.expand,
        "after traffic": after * mid,
        f"{part.activation} traffic": (before * part.expand + after) * mid,
        "gate calls": gated,
        "gate work": part.se_channels * mid,
        "gate traffic": gated * after * mid,
        "weights": mid * (part.in_channels + part.out_channels),
        "shortcut calls": part.shortcut,
        "out traffic": after * part.out_channels,
    }


def _bottleneck_feature_dict(part: Part) -> dict[str, float]:
    before, after, mid = part.in_size**2, part.out_size**2, part.mid_channels
    return {
        "bottleneck calls": 1,
        "reduce work": before * part.in_channels * mid,
        "filter work": after * mid * mid * part.kernel**2,
        "project work": after * mid * part.out_channels,
        "projected calls": part.projected,
        "projected work": part.projected * after * part.in_channels * part.out_channels,
        "in traffic": before * part.in_channels,
        "middle traffic": (before + after) * mid,
        "out traffic": after * part.out_channels,
        "weights": mid * (part.in_channels + part.out_channels + mid * part.kernel**2),
    }


_FEATURES: dict[str, Callable[[Part], dict[str, float]]] = {
    "conv": _dense_feature_dict,
    "pool": _dense_feature_dict,
    "max_pool": _dense_feature_dict,
    "linear": _dense_feature_dict,
    "mbconv": _mbconv_feature_dict,
    "bottleneck": _bottleneck_feature_dict,
}
