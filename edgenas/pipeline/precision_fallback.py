"""What to keep in float so that a file that failed its check loses less, found by trying."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgenas.bundle import run_model
from edgenas.export import ExportFormat
from edgenas.export.quantize.layer_errors import LayerError
from edgenas.export.quantize.quantize import belongs_to, is_kept_in_float
from edgenas.pipeline.prepared_model import Floats, PreparedModel

_IMAGES = 128
_BLOCKS = 6
_TOGETHER = 3
_HELPS = 0.95  # of the error without: less is chance


@dataclass(frozen=True)
class Remedy:
    """Places to keep in float, none if nothing that was tried helps, and the logits' relative error without and with.

    ``tried`` are all places that were tried on ``images`` images.
    """

    places: tuple[str, ...]
    before: float
    after: float
    tried: tuple[str, ...]
    images: int

    def __str__(self) -> str:
        if not self.places:
            tried = ", ".join(self.tried)
            return f"to keep in float any of {tried} does not help: calibrate on other images or take another precision"
        flags = " ".join(f"--keep-float {place}" for place in self.places)
        return (
            f"{flags} lowers the error from {self.before:.2%} to {self.after:.2%} on {self.images} images;"
            " or calibrate on other images"
        )


def find_remedy(
    prepared: PreparedModel, kind: ExportFormat, found: Floats, errors: Sequence[LayerError]
) -> Remedy | None:
    """Make the file again, once for each place where it loses most, with that place in float; None without a place.

    ``found`` are the logits of the file that failed. A layer alone is not
    tried: it would still read integers, and its result would become integers.
    """
    tried = _places([each.layer for each in errors if not is_kept_in_float(each.layer, prepared.keep_float(kind))])
    if not tried:
        return None
    before = _error(prepared, found)
    lost = {place: _lost(prepared, kind, (place,)) for place in tried}
    helpful = sorted((place for place in tried if lost[place] < _HELPS * before), key=lambda place: lost[place])
    best, together = tuple(helpful[:1]), _apart(helpful)
    after = lost[best[0]] if best else before
    if len(together) > 1:
        error = _lost(prepared, kind, together)
        if error < after:
            best, after = together, error
    return Remedy(best, before, after, tried, len(found[:_IMAGES]))


def _places(layers: Sequence[str]) -> tuple[str, ...]:
    """The first blocks, or parts outside a block, that layers lie in, and the stages of these blocks."""
    blocks = list(dict.fromkeys(map(_block, layers)))[:_BLOCKS]
    return tuple(dict.fromkeys([*blocks, *(block.partition(".")[0] for block in blocks)]))


def _block(layer: str) -> str:
    """``stage5.block2`` of ``stage5.block2.se.mul``, ``stem`` of ``stem.conv``."""
    first, *others = layer.split(".")
    return f"{first}.{others[0]}" if others and others[0].startswith("block") else first


def _apart(places: Sequence[str]) -> tuple[str, ...]:
    """The first few of which none holds another."""
    chosen: list[str] = []
    for place in places:
        if len(chosen) < _TOGETHER and not any(
            belongs_to(place, other) or belongs_to(other, place) for other in chosen
        ):
            chosen.append(place)
    return tuple(chosen)


def _lost(prepared: PreparedModel, kind: ExportFormat, places: tuple[str, ...]) -> float:
    model, _ = prepared.build(kind, places)
    return _error(prepared, run_model(model, kind.format, prepared.parity_reference.inputs[:_IMAGES]))


def _error(prepared: PreparedModel, found: Floats) -> float:
    expected = prepared.parity_reference.expected[:_IMAGES].astype(np.float64)
    return float(np.sqrt(np.square(expected - found[:_IMAGES]).mean() / np.square(expected).mean()))
