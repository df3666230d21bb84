"""How well a measurement repeats, and what a model costs beyond running it; through SSH on this machine's loopback.

python benchmarks/measuring.py [--repetitions 20] [--blocks 3] [--models 100]

Needs OpenSSH's server. First the same model is measured many times:

- 10 + 50: 10 runs of warm-up and the mean of 50 runs in one process, one
  measurement after the other, which is nn-Meter's way (L. Zhang et al.,
  nn-Meter, MobiSys 2021);
- one by one: as edgenas measures a single model, in the same device time;
- batch: as edgenas measures many models, all in one batch of rounds, in the
  same device time, the reference model's included;
- default: one by one, with the settings that edgenas has.

The spread is the standard deviation of the results by their mean; all ways are
gone through in turn in several blocks, and the median block counts. Then many
small models are measured once each, and all seconds that were not spent on
their runs are shared among them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgenas.devices import Device, Target, connect
from edgenas.devices.testing_sshd import Sshd
from edgenas.export import build_onnx, random_weights
from edgenas.profilers import Batch, Measurement, MeasureSettings, Rounds, measure_many
from edgenas.space import MobileNetV3

# Warm-up ends after exactly ten runs where it may take no time.
NN_METER = MeasureSettings(
    processes=1, max_processes=1, warmup_runs=10, warmup_seconds=0, min_runs=50, max_runs=50, min_seconds=0
)
PROCESSES = 4
LEAST_MACS, MOST_MACS = 170e6, 340e6


@dataclass(frozen=True)
class Results:
    """What measuring a model many times gave: ms each, device seconds in all, how many said not to trust them."""

    values: list[float]
    device_s: float
    refused: int

    @property
    def spread(self) -> float:
        return statistics.stdev(self.values) / statistics.fmean(self.values)


def make_models(folder: Path, count: int, seed: int) -> list[Path]:
    """Random subnets of 1 to 3 MB, of as many operations as take some 4 to 8 ms on this kind of machine."""
    space = MobileNetV3(width=0.35, resolutions=(320, 352, 384), classes=10)
    genes = space.sample_distinct(20 * count, np.random.default_rng(seed))
    fitting = genes[(space.macs(genes) > LEAST_MACS) & (space.macs(genes) < MOST_MACS)][:count]
    paths = []
    for number, architecture in enumerate(space.decode(fitting)):
        paths.append(folder / f"{seed}-{number:03}.onnx")
        paths[-1].write_bytes(build_onnx(architecture, random_weights(architecture)))
    return paths


@contextlib.contextmanager
def busy_core(wanted: bool) -> Iterator[None]:
    """A process that keeps the last core busy."""
    if not wanted:
        yield
        return
    code = f"import os; os.sched_setaffinity(0, {{{max(os.sched_getaffinity(0))}}})\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as process:  # noqa: S603 - this interpreter, code from here
        time.sleep(0.5)
        try:
            yield
        finally:
            process.kill()


def fixed(model: Path, target: Target, device: Device, repetitions: int) -> Results:
    """Means of 50 runs, each in a process of its own."""
    found = list(measure_many([model] * repetitions, target, device=device, settings=NN_METER))
    measured = [each for each in found if isinstance(each, Measurement)]
    refused = sum(each.verdict.status == "refused" for each in measured)
    means = [statistics.fmean(each.samples_ms) for each in measured]
    return Results(means, sum(each.device_s for each in measured), refused)


def batch(models: list[Path], target: Target, device: Device, settings: MeasureSettings) -> Results:
    """Medians of files that are measured together."""
    spent: list[float] = []
    together = Batch(models, target, settings, on_process=lambda number, process: spent.append(process.device_s))
    together.run(device)
    measured = [each for each in together.results() if isinstance(each, Rounds)]
    refused = sum(each.verdict.status == "refused" for each in measured)
    return Results([each.median_ms for each in measured], sum(spent), refused)


def one_by_one(models: list[Path], target: Target, device: Device, settings: MeasureSettings) -> Results:
    """Medians of files that are measured one after the other."""
    each = [batch([model], target, device, settings) for model in models]
    values = [one.values[0] for one in each]
    return Results(values, sum(one.device_s for one in each), sum(one.refused for one in each))


def equal_time(model: Path, target: Target, device: Device) -> MeasureSettings:
    """Four processes that together take as long as one of 10 and 50 runs: what start and warm-up leave is sampled."""
    seconds = fixed(model, target, device, 5).device_s / 5
    brief = MeasureSettings(
        processes=5, max_processes=5, warmup_runs=5, warmup_seconds=0, min_runs=2, max_runs=2, min_seconds=0
    )
    start = batch([model], target, device, brief).device_s / 5
    sampling = max(0.005, seconds / PROCESSES - start)
    return MeasureSettings(
        processes=PROCESSES, max_processes=PROCESSES, warmup_runs=5, warmup_seconds=0, min_runs=3,
        min_seconds=sampling, max_seconds=sampling, total_seconds=0,
    )  # fmt: skip


def print_spread(models: list[Path], target: Target, device: Device, blocks: int, busy: bool) -> None:
    """Measure in all ways in turn, and print a row for each."""
    with busy_core(busy):
        equal = equal_time(models[0], target, device)
        ways: dict[str, Callable[[], Results]] = {
            "10 + 50": lambda: fixed(models[0], target, device, len(models)),
            "one by one": lambda: one_by_one(models, target, device, equal),
            "batch": lambda: batch(models, target, device, equal),
            "default": lambda: one_by_one(models, target, device, MeasureSettings()),
        }
        found: dict[str, list[Results]] = {name: [] for name in ways}
        for _ in range(blocks):
            for name, way in ways.items():
                found[name].append(way())
    theirs = statistics.median(block.spread for block in found["10 + 50"])
    for name, results in found.items():
        values = [value for block in results for value in block.values]
        spread = statistics.median(block.spread for block in results)
        row = (
            f"{statistics.fmean(values):.3f}", f"{spread:.2%}", f"{spread / theirs:.2f}",
            " ".join(f"{block.spread:.2%}" for block in results),
            f"{sum(block.device_s for block in results) / len(values):.2f}",
            f"{sum(block.refused for block in results)} of {len(values)}",
        )  # fmt: skip
        print(f"| {'busy' if busy else 'idle'} | {name} | {' | '.join(row)} |", flush=True)


def print_overhead(models: list[Path], target: Target, device: Device) -> None:
    """Measure every model in one process, and print where the time went that was not theirs."""
    running = 0.0
    medians = []

    def keep(number: int | None, measurement: Measurement) -> None:
        nonlocal running
        if number is not None:
            running += measurement.running_s
            medians.append(measurement.median_ms)

    settings = MeasureSettings(processes=1, max_processes=1)
    together = Batch(models, target, settings, on_process=keep)
    began = time.monotonic()
    together.run(device)
    seconds = time.monotonic() - began
    row = (
        f"{min(medians):.1f} to {max(medians):.1f}", f"{seconds:.1f}", f"{running:.1f}",
        f"{1000 * (seconds - running) / len(models):.1f}",
    )  # fmt: skip
    print(f"| {len(models)} | {' | '.join(row)} |")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--models", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Sshd(Path(folder) / "sshd") as sshd:
        target = Target(sshd.profile())
        with connect(target.profile) as device:
            (model,) = make_models(Path(folder), 1, seed=1)
            copies = [Path(shutil.copy(model, Path(folder) / f"copy{n}.onnx")) for n in range(options.repetitions)]
            print(
                "| other core | way | mean, ms | spread | by that of 10 + 50 | each block | device s each | refused |"
            )
            print("|---|---|---|---|---|---|---|---|")
            for busy in (False, True):
                print_spread(copies, target, device, options.blocks, busy)
            print("\n| models | ms | seconds in all | running them | overhead a model, ms |\n|---|---|---|---|---|")
            print_overhead(make_models(Path(folder), options.models, seed=2), target, device)


if __name__ == "__main__":
    main()
