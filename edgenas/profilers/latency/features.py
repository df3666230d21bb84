"""What is known of the costs of parts before measuring, derived from their primitive layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from edgenas.costs import Vector
from edgenas.space import Part
from edgenas.space.parts import macs


def part_features(parts: Sequence[Part]) -> Vector:
    """Return non-negative features (P, F) of parts; a part costs about a weighted sum of them.

    They are calls, multiply-accumulates, values read or written and weights, of each kind of layer apart.
    """
    rows = [_features_by_name(part) for part in parts]
    names = sorted({name for row in rows for name in row})
    return np.array([[row[name] for name in names] for row in rows], dtype=np.float64)


def plain_features(parts: Sequence[Part]) -> Vector:
    """Return calls, multiply-accumulates and values read or written (P, 3), the same for all kinds of layers."""
    return np.array([[1.0, macs(part), _values_moved(part)] for part in parts])


def part_similarities(parts: Sequence[Part]) -> dict[str, Vector]:
    """Return covariances (P, P) of the costs of parts, by name, with ones on their diagonals.

    ``all`` is common to all parts, ``own`` is each part's alone. ``channels`` is of blocks of one kind whose first
    layer makes equally many channels: how these fit the processor's vectors changes the time of several layers.
    Others were tried and gained nothing: equal places, kernels, sizes, other resolutions, nearness of all sizes.
    """
    keys = [(part.operator, part.graph.layers[0].shape[0]) for part in parts]
    number = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    codes = np.array([number[key] for key in keys])
    return {
        "all": np.ones((len(parts), len(parts))),
        "own": np.eye(len(parts)),
        "channels": np.asarray(codes[:, None] == codes, dtype=np.float64),
    }


def _features_by_name(part: Part) -> Counter[str]:
    features: Counter[str] = Counter()
    for layer in part.graph.layers:
        if layer.kind:
            features[f"{layer.kind} calls"] += 1
            features[f"{layer.kind} work"] += layer.macs
            features[f"{layer.kind} traffic"] += math.prod(layer.in_shape) + math.prod(layer.shape)  # the first input's
            features[f"{layer.kind} weights"] += layer.params
    return features


def _values_moved(part: Part) -> int:
    """Return the values of the input and of what each layer writes, elementwise layers being fused into others."""
    written = (math.prod(layer.shape) for layer in part.graph.layers if not layer.elementwise)
    return math.prod(part.in_shape) + sum(written)
