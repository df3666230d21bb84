"""Evaluate predicted peak memory on held-out subnets, and print what it consists of.

python benchmarks/peak_memory.py [--subnets 100] [--models FOLDER]

MobileNetV3 of width 1.0 at 128, 160, 192 and 224 pixels, and the small space of
the demo, on this machine with one thread. Each subnet runs twice, each time in
its own process: the difference is the noise. 60% of the subnets are fitted, the
others are held out. For comparison: least squares of relative errors on a
constant, peak activations and weights; and both with one of the fitted peaks
recorded as 0. Model files are kept in FOLDER for the next run, if it is given.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from edgenas.costs import Genes, Vector
from edgenas.devices import Target, load_profile
from edgenas.pipeline.export_formats import format_of
from edgenas.profilers import Measurement, MeasureSettings, MeasuringSession
from edgenas.profilers.latency.memory import MemoryModel, memory_mape
from edgenas.profilers.latency.prior import fit_non_negative
from edgenas.runtimes.building import write_random_file
from edgenas.space import Architecture, MobileNetV3, SearchSpace

SPACES: dict[str, SearchSpace] = {
    "w1.0": MobileNetV3(resolutions=(128, 160, 192, 224)),
    "digits": MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10),
}
TARGETS = (("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("litert", "fp32"))
# The peak is reached within two runs.
SETTINGS = MeasureSettings(
    processes=1, max_processes=1, warmup_runs=1, warmup_seconds=0, min_runs=2, max_runs=2, min_seconds=0, max_seconds=1
)
BATCH = 20  # models by one agent


def files(architectures: list[Architecture], target: Target, folder: Path) -> list[Path]:
    """Return the subnets' model files; write those that do not exist."""
    kind = format_of(target)
    paths = [folder / f"{each.id}-{kind}.{kind.format}" for each in architectures]
    for architecture, path in zip(architectures, paths, strict=True):
        if not path.exists():
            path.write_bytes(write_random_file(architecture, kind))
    return paths


def peaks(models: list[Path], target: Target) -> Vector:
    """Measure the peak memory (N,) of each model above an empty session, bytes."""
    found: list[float] = []
    for first in range(0, len(models), BATCH):
        with MeasuringSession(target) as session:
            for each in session.iter_measurements(models[first : first + BATCH], SETTINGS):
                assert isinstance(each, Measurement), each
                assert each.peak_bytes is not None
                found.append(each.peak_bytes)
    return np.array(found)


def three_columns(space: SearchSpace, genes: Genes, seen: int, measured: Vector) -> Vector:
    """Predict (N,) by least squares on a constant, peak activations and weights, fitted to the first rows."""
    columns = np.column_stack([np.ones(len(genes)), space.activation_bytes(genes), space.weight_bytes(genes)])
    predicted: Vector = columns @ fit_non_negative(columns[:seen], np.maximum(measured[:seen], 1.0))
    return predicted


def evaluate_memory_model(space: SearchSpace, genes: Genes, measured: Vector, again: Vector) -> tuple[str, MemoryModel]:
    """Return a row of the table of errors, without its name, and the fitted model."""
    seen = len(genes) * 3 // 5
    unseen, damaged = measured[seen:], measured.copy()
    damaged[seen // 2] = 0
    model = MemoryModel.fit(space, genes[:seen], measured[:seen])
    away = np.abs(model.peak_bytes(genes[seen:]) / unseen - 1)
    robust = MemoryModel.fit(space, genes[:seen], damaged[:seen]).peak_bytes(genes[seen:])
    cells = [f"{measured.min() / 1e6:.1f} to {measured.max() / 1e6:.1f} MB", f"{memory_mape(again, measured):.1%}"]
    for values in (measured, damaged):
        cells.append(f"{memory_mape(three_columns(space, genes, seen, values)[seen:], unseen):.1%}")
    cells += [f"{away.mean():.1%}", f"{np.quantile(away, 0.95):.1%}", f"{away.max():.1%}"]
    return " | ".join([*cells, f"{memory_mape(robust, unseen):.1%}"]), model


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subnets", type=int, default=100)
    parser.add_argument("--models", type=Path)
    options = parser.parse_args()
    print("| target | space | peaks | repeated | least squares | with a 0 | edgenas MAPE | p95 | max | with a 0 |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    consists = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.models or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name, space in SPACES.items():
            genes = space.sample_distinct(options.subnets, np.random.default_rng(5))
            for runtime, precision in TARGETS:
                target = Target(load_profile("localhost"), runtime=runtime, precision=precision, threads=1)
                models = files(space.decode(genes), target, folder)
                row, model = evaluate_memory_model(space, genes, peaks(models, target), peaks(models, target))
                print(f"| {runtime} {precision} | {name} |", row, "|", flush=True)
                costs = model.costs
                each = f"{costs.per_activation_byte:.2f} | {costs.per_weight_byte:.2f}"
                consists.append(
                    f"| {runtime} {precision} | {name} | {costs.constant / 1e6:.2f} MB | {each}"
                    f" | {costs.per_operator / 1e3:.0f} kB |"
                )
    print("\n| target | space | constant | per byte of activations | per byte of weights | per operator |")
    print("|---|---|---|---|---|---|", *consists, sep="\n")


if __name__ == "__main__":
    main()
