"""Layers by the places that contain them, for keeping some of a model in float."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from edgenas.errors import UsageError

_NEAREST_SHOWN = 3


def is_kept_in_float(layer: str, keep_float: Sequence[str]) -> bool:
    """Return True for a layer, or merged layers joined by ``;``, in ``keep_float`` or below a place in it."""
    return any(belongs_to(name, place) for name in layer.split(";") for place in keep_float)


def belongs_to(layer: str, place: str) -> bool:
    """Return True for the layer called ``place`` and for all layers below it."""
    return layer == place or layer.startswith((f"{place}.", f"{place}/"))


def select_layers(layers: Iterable[str], keep_float: Sequence[str]) -> frozenset[str]:
    """Return the layers that ``keep_float`` stands for.

    Raises:
        UsageError: for a place that stands for no layer, with the nearest ones.
    """
    names = list(layers)
    selected: set[str] = set()
    for place in keep_float:
        below = [layer for layer in names if belongs_to(layer, place)]
        if not below:
            close = difflib.get_close_matches(place, names, n=_NEAREST_SHOWN, cutoff=0)
            raise UsageError(f"keep-float: no layer is named {place!r} or lies below it; nearest: {', '.join(close)}")
        selected.update(below)
    return frozenset(selected)
