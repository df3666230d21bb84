"""A search, by trying, for places of a model to keep in float so that its file loses less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgenas.export.quantize.layer_errors import LayerError
from edgenas.export.quantize.layer_selection import belongs_to, is_kept_in_float
from edgenas.pipeline.prepared_model import Floats, PreparedModel
from edgenas.runtimes import ExportFormat

_IMAGES = 128
_BLOCKS = 6
_TOGETHER = 3
_HELPS = 0.95  # of the error without it: less is chance


@dataclass(frozen=True)
class PrecisionFallback:
    """Places to keep in float, and the relative error of the logits without and with that.

    ``places`` is empty when nothing that was tried helps; ``tried`` are all
    places that were tried on ``images`` images.
    """

    places: tuple[str, ...]
    before: float
    after: float
    tried: tuple[str, ...]
    images: int

    def __str__(self) -> str:
        if not self.places:
            tried = ", ".join(self.tried)
            return f"keeping any of {tried} in float does not help: calibrate on other images or use another precision"
        flags = " ".join(f"--keep-float {place}" for place in self.places)
        return (
            f"{flags} lowers the error from {self.before:.2%} to {self.after:.2%} on {self.images} images;"
            " or calibrate on other images"
        )


def find_float_places(
    prepared: PreparedModel, export_format: ExportFormat, logits: Floats, errors: Sequence[LayerError]
) -> PrecisionFallback | None:
    """Make the file once for each place where it loses most, with that place in float; None without such a place.

    Single layers are not tried: they would still read integers, and their
    results would become integers again.

    Args:
        prepared: The model.
        export_format: The format whose file failed.
        logits: The logits of that file.
        errors: What each of its layers loses, those that add most first.
    """
    kept = prepared.float_places(export_format)
    tried = _list_places([error.layer for error in errors if not is_kept_in_float(error.layer, kept)])
    if not tried:
        return None
    before = _relative_error(prepared, logits)
    error_with = {place: _error_with_float(prepared, export_format, (place,)) for place in tried}
    helpful = sorted((place for place in tried if error_with[place] < _HELPS * before), key=error_with.__getitem__)
    best, together = tuple(helpful[:1]), _select_disjoint(helpful)
    after = error_with[best[0]] if best else before
    if len(together) > 1:
        error = _error_with_float(prepared, export_format, together)
        if error < after:
            best, after = together, error
    return PrecisionFallback(best, before, after, tried, len(logits[:_IMAGES]))


def _list_places(layers: Sequence[str]) -> tuple[str, ...]:
    """Return the first blocks (or parts outside a block) that contain the layers, and the stages of these blocks."""
    blocks = list(dict.fromkeys(map(_block_of_layer, layers)))[:_BLOCKS]
    return tuple(dict.fromkeys([*blocks, *(block.partition(".")[0] for block in blocks)]))


def _block_of_layer(layer: str) -> str:
    """Return ``stage5.block2`` for ``stage5.block2.se.mul``, ``stem`` for ``stem.conv``."""
    first, *others = layer.split(".")
    return f"{first}.{others[0]}" if others and others[0].startswith("block") else first


def _select_disjoint(places: Sequence[str]) -> tuple[str, ...]:
    """Return the first few places of which none contains another."""
    chosen: list[str] = []
    for place in places:
        if len(chosen) < _TOGETHER and not any(
            belongs_to(place, other) or belongs_to(other, place) for other in chosen
        ):
            chosen.append(place)
    return tuple(chosen)


def _error_with_float(prepared: PreparedModel, export_format: ExportFormat, places: tuple[str, ...]) -> float:
    """Make the file with these places in float and return the relative error of its logits."""
    model = prepared.build(export_format, places)
    return _relative_error(prepared, export_format.runtime.run(model, prepared.parity_reference.inputs[:_IMAGES]))


def _relative_error(prepared: PreparedModel, logits: Floats) -> float:
    """Return the root mean square error of logits, relative to PyTorch's."""
    expected = prepared.parity_reference.expected[:_IMAGES].astype(np.float64)
    return float(np.sqrt(np.square(expected - logits[:_IMAGES]).mean() / np.square(expected).mean()))
