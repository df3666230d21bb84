"""The step that measures subnets on a target and fits its latency table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgenas.devices import Target
from edgenas.errors import UsageError
from edgenas.export import Kind, build_onnx, random_weights
from edgenas.export.calibration import Calibration
from edgenas.pipeline.inputs import made_from
from edgenas.pipeline.kinds import build_kind, kind_of
from edgenas.pipeline.measurements import Measurer
from edgenas.profilers import LatencyTable, Measurement, MeasureSettings
from edgenas.space import Architecture

if TYPE_CHECKING:
    from edgenas.pipeline.run import Run

# Many subnets measured briefly teach a table more than few measured long.
SETTINGS = MeasureSettings(
    relative_half_width=0.01, processes=1, max_processes=1, min_seconds=0.2, max_seconds=0.25, warmup_seconds=0.05
)
_BATCH = 20
_MINIMUM = 40
_MOST = 4000
_MOST_MINUTES = 1440


def profile(run: Run, target: Target, minutes: float) -> LatencyTable:
    """The table of ``target`` from random subnets with random weights (latency does not depend on their values).

    Goes on until ``minutes`` of device time are measured, at least 40 subnets;
    the time is that of the recorded measurements, so an interrupted profile
    ends with the same subnets as an unbroken one. Every fifth subnet is held
    out to judge the table.
    """
    if not 0 < minutes <= _MOST_MINUTES:
        raise UsageError(f"minutes must be above 0 and at most {_MOST_MINUTES}, but got {minutes:g}")
    current = made_from(run.space.short_hash, target.to_dict(), SETTINGS.to_dict(), float(minutes))
    path = run.layout.table(target.name)
    with run.layout.writing():
        if path.exists():
            table = LatencyTable.load(path, run.space)
            if table.made_from == current:
                run.progress.say(f"profile   already done ({target.name})")
                return table
        architectures = run.space.decode(run.space.sample_distinct(_MOST, np.random.default_rng(0)))
        measurements = _measure(run, target, architectures, minutes * 60)
        genes = run.space.encode(architectures[: len(measurements)])
        held_out = np.arange(len(measurements)) % 5 == 4
        table = LatencyTable.fit(run.space, target.name, genes, measurements, held_out, current)
        table.save(path)
    return table


def _measure(run: Run, target: Target, architectures: list[Architecture], device_s: float) -> list[Measurement]:
    """Measurements of the first architectures, batch by batch until their device time is used up."""
    measurements: list[Measurement] = []
    spent = 0.0
    with (
        Measurer(run.layout.measurements(target.name), target, SETTINGS) as measurer,
        run.progress.step("profile", device_s) as bar,
    ):
        running = 0.0

        def show(measurement: Measurement) -> None:
            nonlocal running
            running += measurement.device_s
            bar(min(spent + running, device_s), f"{measurement.median_ms:.3f} ms  {measurement.verdict.status}")

        for first in range(0, len(architectures), _BATCH):
            batch = architectures[first : first + _BATCH]
            running = 0.0
            measurements += measurer.measure([_file(each, kind_of(target)) for each in batch], show)
            spent = sum(measurement.device_s for measurement in measurements)
            bar(min(spent, device_s), f"{len(measurements)} subnets")
            if spent >= device_s and len(measurements) >= _MINIMUM:
                break
        return measurer.corrected(measurements)


def _file(architecture: Architecture, kind: Kind) -> bytes:
    """A subnet with random weights, as the target runs it; latency depends on the values of neither these nor noise."""
    channels, size = next(iter(architecture.parts.values())).in_channels, architecture.resolution
    noise = np.random.default_rng(0).standard_normal((1, channels, size, size), np.float32)
    calibration = Calibration(noise, "minmax") if kind.precision == "int8" else None
    return build_kind(build_onnx(architecture, random_weights(architecture)), kind, calibration)[0]
