"""The anchor: a small network that is the same everywhere, to tell whether a device is as fast as it was before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenas.devices import Target
from edgenas.errors import MissingExtraError
from edgenas.files import write_bytes
from edgenas.profilers import Measurement
from edgenas.profilers.measure.result import process_median_with_interval
from edgenas.profilers.measure.statistics import ratio_interval
from edgenas.runtimes import SourceModel, load_runtime
from edgenas.units import format_change

ANCHOR_TOLERANCE = 0.02


@dataclass(frozen=True)
class AnchorCheck:
    """The anchor's latency now by its stored one, with the ends of the 95% interval of that ratio."""

    ratio: float
    interval: tuple[float, float]

    @property
    def agrees(self) -> bool:
        """True where it is within 2% of its stored latency."""
        return abs(self.ratio - 1) <= ANCHOR_TOLERANCE

    def __str__(self) -> str:
        low, high = self.interval
        ends = f"95%: {format_change(low)} to {format_change(high)}"
        return f"the anchor's latency changed by {format_change(self.ratio)} ({ends})"


def write_anchor(target: Target, folder: Path) -> Path | None:
    """Write the anchor for a target's runtime; None where a library for its format is not installed."""
    from edgenas.export import build_onnx, random_weights
    from edgenas.export.onnx.session import OnnxFile
    from edgenas.space import MobileNetV3

    runtime = load_runtime(target.runtime)
    network = MobileNetV3(width=0.35, resolutions=(96,), classes=10).smallest
    onnx = OnnxFile(build_onnx(network, random_weights(network)))
    path = folder / f"anchor{runtime.suffix}"
    try:
        write_bytes(path, bytes(runtime.make_float_file(SourceModel(onnx))))
    except MissingExtraError:
        return None
    return path


def compare_anchor(then: Sequence[Measurement], now: Sequence[Measurement]) -> AnchorCheck:
    """Return the anchor's change between two sessions; each has two or more processes."""
    before, after = process_median_with_interval(then), process_median_with_interval(now)
    return AnchorCheck(after[0] / before[0], ratio_interval(after, before))
