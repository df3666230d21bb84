"""Evaluate latency tables on published data: unmeasured resolutions, selection of subnets, a new target.

EDGENAS_DATA=FOLDER python benchmarks/latency_tables.py

Interpolation: Once-for-All's tables of a Samsung Note10. Subnets at 160, 192 and
224 pixels with 1% or 4% of noise are fitted; all five resolutions are predicted.
Selection: subnets drawn at random, or as ``edgenas profile`` selects them.
Transfer: the cells of NAS-Bench-201, measured on a Raspberry Pi 4 and a Pixel 3.
A cell's parts are its operations by edge, and by whether the edge is reached
from the input and reaches the output. 500 cells of the Pi make a source table.
Then few cells of the Pixel are fitted, with that table as a prior and without.
With measurements as a prior too, each cell deviates from the sum of its parts as
the very same cell does on the Pi.
"""

from __future__ import annotations

import csv
import gzip
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau, spearmanr

from edgenas.costs import Genes, Vector
from edgenas.profilers import LatencyTable, PublishedTables
from edgenas.profilers.latency.acquisition import select_subnets
from edgenas.profilers.latency.fit import (
    PartCosts,
    fit_part_costs,
    fit_with_transfer,
    part_count_matrix,
    source_features,
)
from edgenas.profilers.latency.gaussian_process import fit_part_process
from edgenas.profilers.latency.prior import Features, PartBasis
from edgenas.space import MobileNetV3

SEEDS = 6
CHOICES, FITTED = 4, (40, 80, 120, 160, 240)
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
OPERATIONS = ("skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
DEGENERATE_MS = 0.5
WAYS = ("scaled table", "scaled measurements", "table as prior", "table and measurements as prior", "no prior")
Part = tuple[int, str, bool, bool]
Cells = npt.NDArray[np.int64]


def interpolate(folder: Path) -> None:
    """Print the error at each resolution; unmeasured ones are marked."""
    space = MobileNetV3(width=1.2, resolutions=(160, 176, 192, 208, 224))
    table = PublishedTables.load(folder / "ofa" / "note10").to_latency_table(space, "note10")
    genes = space.sample(4000, np.random.default_rng(0))
    unseen, pool = genes[2000:], genes[:2000][np.isin(genes[:2000, 0], (0, 2, 4))]
    truth, counts = table.latency_ms(unseen), part_count_matrix(space, unseen)
    print(
        "| noise | subnets | 160 | 176, not measured | 192 | 208, not measured | 224 |\n|---|---|---|---|---|---|---|"
    )
    for noise in (0.01, 0.04):
        for count in (60, 120, 300):
            cells = np.zeros((len(space.resolutions), 3))
            for seed in range(SEEDS):
                rng = np.random.default_rng(seed)
                seen = pool[rng.permutation(len(pool))[:count]]
                process = fit_part_costs(space, seen, table.latency_ms(seen) * rng.lognormal(0, noise, count))
                predicted = process.predict(counts)
                cells += [_mape_bias_and_tau(predicted, truth, unseen[:, 0] == row) for row in range(len(cells))]
            texts = [f"{mape:.1%} ({bias:+.1%}, {tau:.2f})" for mape, bias, tau in cells / SEEDS]
            print(f"| {noise:.0%} | {count} |", " | ".join(texts), "|", flush=True)


def _mape_bias_and_tau(predicted: Vector, truth: Vector, rows: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    error = (predicted / truth - 1)[rows]
    return float(np.abs(error).mean()), float(error.mean()), float(kendalltau(predicted[rows], truth[rows]).statistic)


def read_cells(path: Path) -> tuple[list[list[str]], Vector, Vector]:
    """Return the operations on the six edges and the latencies on both devices of non-degenerate cells."""
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    both = np.array([[float(row["raspi4_ms"]), float(row["pixel3_ms"])] for row in rows])
    sound: npt.NDArray[np.bool_] = (both > DEGENERATE_MS).min(axis=1)
    cells = [re.findall(r"([a-z_0-9]+)~\d", row["arch"]) for row in rows]
    return [cell for cell, kept in zip(cells, sound, strict=True) if kept], both[sound, 0], both[sound, 1]


def parts_of(cell: list[str]) -> list[Part]:
    """Return the parts of a cell: edge, operation, reached from the input, reaches the output."""
    reached, reaching = {0}, {3}
    for (start, end), operation in zip(EDGES, cell, strict=True):
        if operation != "none" and start in reached:
            reached.add(end)
    for (start, end), operation in sorted(zip(EDGES, cell, strict=True), key=lambda each: -each[0][1]):
        if operation != "none" and end in reaching:
            reaching.add(start)
    return [
        (number, operation, EDGES[number][0] in reached, EDGES[number][1] in reaching)
        for number, operation in enumerate(cell)
        if operation != "none"
    ]


def cell_basis(parts: list[Part]) -> PartBasis:
    """Return features of parts: calls of each operation in use; equal operations, places and uses are similar."""
    calls = [[float(part[1] == name and part[2] and part[3]) for name in OPERATIONS] for part in parts]
    detail = [[float(part[1] == name) for name in OPERATIONS] for part in parts]
    keys = {
        "operation": (1,),
        "use": (2, 3),
        "operation and use": (1, 2, 3),
        "edge": (0,),
        "operation, reached": (1, 2),
    }
    alike = {
        name: np.array([[float(all(one[i] == other[i] for i in places)) for other in parts] for one in parts])
        for name, places in keys.items()
    }
    similarities = {"own": np.eye(len(parts)), **alike}
    return PartBasis(Features.with_overhead(np.array(calls)), np.array(detail), similarities)


def transfer(folder: Path) -> None:
    """Print Spearman, Kendall tau and MAPE on 4,000 held-out cells of the Pixel."""
    cells, raspi, pixel = read_cells(folder / "nasbench201" / "nasbench201.csv.gz")
    described = [parts_of(cell) for cell in cells]
    parts = sorted({part for each in described for part in each})
    place = {part: number for number, part in enumerate(parts)}
    counts = np.zeros((len(cells), len(parts)))
    for row, each in enumerate(described):
        counts[row, [place[part] for part in each]] = 1
    order = np.random.default_rng(0).permutation(len(cells))
    unseen, pool = order[:4000], order[4000:]
    basis = cell_basis(parts)
    other = fit_part_process(basis, counts[pool[:500]], raspi[pool[:500]])
    informed = replace(
        basis, source_features=source_features(basis.base_features, [PartCosts(other.overhead, other.costs)])
    )
    copied = other.predict(counts)
    own = raspi / copied  # what a cell has of its own there, beside its parts

    def shown(predicted: Vector) -> list[float]:
        error = float(np.abs(predicted / pixel[unseen] - 1).mean())
        rank = float(spearmanr(predicted, pixel[unseen]).statistic)
        return [rank, float(kendalltau(predicted, pixel[unseen]).statistic), error]

    def with_prior(seen: Cells, latency: Vector) -> Vector:
        return fit_with_transfer(informed, counts[seen], latency).predict(counts[unseen])

    print(f"| cells | {' | '.join(WAYS)} |\n|---|---|---|---|---|---|")
    for count in (0, 5, 10, 20, 50, 100, 200):
        found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
        for seed in range(SEEDS):
            seen = np.random.default_rng(seed).permutation(pool)[:count]
            for way, copy in zip(WAYS, (copied, raspi), strict=False):
                scale = float(np.median(pixel[seen] / copy[seen])) if count else 1.0
                found[way].append(shown(copy[unseen] * scale))
            if count:
                plain = fit_part_process(basis, counts[seen], pixel[seen])
                predicted = (
                    with_prior(seen, pixel[seen]),
                    with_prior(seen, pixel[seen] / own[seen]) * own[unseen],
                    plain.predict(counts[unseen]),
                )
                for way, found_there in zip(WAYS[2:], predicted, strict=True):
                    found[way].append(shown(found_there))
        means = [np.mean(each, axis=0) if each else None for each in found.values()]
        texts = ["-" if each is None else "{:.3f}, {:.3f}, {:.1%}".format(*each) for each in means]
        print(f"| {count} |", " | ".join(texts), "|", flush=True)


def choose(folder: Path) -> None:
    """Print the MAPE on held-out subnets by number of fitted ones, selected 20 at a time after 40 or at random."""
    space = MobileNetV3(width=1.2, resolutions=(160, 176, 192, 208, 224))
    table = PublishedTables.load(folder / "ofa" / "note10").to_latency_table(space, "note10")
    unseen = space.sample(2000, np.random.default_rng(1))
    truth = table.latency_ms(unseen)
    print(f"| noise | selection | {' | '.join(map(str, FITTED))} |\n|---|---|{'---|' * len(FITTED)}")
    for noise in (0.01, 0.04):
        for name in ("random", "`edgenas profile`"):
            errors = np.zeros(len(FITTED))
            for seed in range(CHOICES):
                errors += _errors_by_count(table, noise, seed, name == "random", unseen, truth)
            print(f"| {noise:.0%} | {name} |", " | ".join(f"{each:.2%}" for each in errors / CHOICES), "|", flush=True)


def _errors_by_count(
    table: LatencyTable, noise: float, seed: int, at_random: bool, unseen: Genes, truth: Vector
) -> Vector:
    space, rng = table.space, np.random.default_rng(seed)
    seen = space.sample_distinct(max(FITTED) + 2, rng)[2:]
    if not at_random:
        seen = select_subnets(space, None, np.empty((0, seen.shape[1]), int), FITTED[0], rng)
    latency = table.latency_ms(seen) * rng.lognormal(0, noise, len(seen))
    errors = []
    for count in range(FITTED[0], max(FITTED) + 1, 20):
        process = fit_part_costs(space, seen[:count], latency[:count])
        if count in FITTED:
            errors.append(float(np.abs(process.predict(part_count_matrix(space, unseen)) / truth - 1).mean()))
        if not at_random:
            chosen = select_subnets(space, process, seen, 20, rng)
            seen = np.concatenate([seen, chosen])
            latency = np.append(latency, table.latency_ms(chosen) * rng.lognormal(0, noise, len(chosen)))
    return np.array(errors)


def main() -> None:
    """Print all comparisons, as tables for docs/latency_tables.md."""
    folder = Path(os.environ["EDGENAS_DATA"])
    print("MAPE (bias, Kendall tau) by resolution")
    interpolate(folder)
    print("\nMAPE by number of fitted subnets and selection")
    choose(folder)
    print("\nSpearman, Kendall tau, MAPE on the Pixel 3, from few cells measured there and a Raspberry Pi 4")
    transfer(folder)


if __name__ == "__main__":
    main()
