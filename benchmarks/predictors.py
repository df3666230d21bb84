"""Evaluate latency tables and other prediction methods on the recordings of benchmarks/predicting.py.

python -m benchmarks.predictors benchmarks/recordings [--ablate]
EDGENAS_DATA=FOLDER python -m benchmarks.predictors OUT [--keep FOLDER]

The first command needs no device: it reads medians that are kept in the repository.
The second reads a recording of your own; ``--keep`` writes its medians to a folder.

The ground truth of each target is 200 held-out subnets, each measured several
times, freed from the machine's drift. The methods: a latency table from all its
device time and from shares of it; one from half of it with isolated parts as a
source table; sums of isolated parts (Once-for-All's method); random forests on
fused kernels (nn-Meter's method); a linear model of multiply-accumulates; and sums
of operators as onnxruntime's profiler times them in whole subnets.
The noise floor is how the first measurement predicts the last, and half of them
the others. The ground truth's own error bounds what can be shown of any method.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import null_space
from scipy.stats import kendalltau
from sklearn.ensemble import RandomForestRegressor

from benchmarks.predicting import (
    HELD_OUT,
    SPACE,
    Record,
    column,
    device_s,
    held_out_subnets,
    kernel_keys,
    moments,
)
from edgenas.costs import Genes, Vector
from edgenas.profilers.latency.drift import Moments, drift_covariances
from edgenas.profilers.latency.fit import PartCosts, fit_part_costs, part_basis, part_count_matrix
from edgenas.profilers.latency.gaussian_process import PartProcess, fit_part_process
from edgenas.profilers.latency.prior import fit_non_negative
from edgenas.profilers.latency.variance_components import estimate_variances, initial_variance, noise_variance

Rows = Sequence[dict[str, Any]]
SHARES = (0.25, 0.5, 1.0)
DRAWS = 50
KEPT_WAYS = ("subnets", "held out", "parts", "kernels", "reference")
BIASES = slice(4, 6)  # of ``HeldOutSubnets._errors``
COLUMNS = (
    "method", "device s", "MAPE", "p95", "within 5%", "within 10%", "bias", "bias near the front",
    "median-scaled MAPE", "tau 128", "160", "192", "224", "pooled", "within 95% interval",
)  # fmt: skip


def calm(record: Record) -> Record:
    """Return a record without rejected measurements."""
    kept: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    for row in record.rows:
        of_a_model = "probe_ms" in row
        (rejected if of_a_model and row["validity"] == "rejected" else kept).append(row)
    known = {row["name"] for row in kept}
    # The other methods need every part and kernel: better a rejected one than none.
    record.rows = kept + [row for row in rejected if row["way"] in ("parts", "kernels") and row["name"] not in known]
    return record


def genes_of(rows: Rows) -> Genes:
    genes: Genes = SPACE.encode([SPACE.from_id(row["name"]) for row in rows])
    return genes


class HeldOutSubnets:
    """The held-out subnets with their ground truth, and the table row of a prediction."""

    def __init__(self, rows: Rows, near: set[str]) -> None:
        self.by_name: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            self.by_name.setdefault(row["name"], []).append(row)
        self.genes = SPACE.encode([SPACE.from_id(name) for name in self.by_name])
        self.counts = part_count_matrix(SPACE, self.genes)
        self.near = np.array([name in near for name in self.by_name])
        self.truth, self.covariance = settled(rows, list(self.by_name))

    @property
    def repeated(self) -> bool:
        """True if each subnet was measured more than once."""
        return min(map(len, self.by_name.values())) > 1

    def noise_floor(self) -> Iterator[str]:
        """Yield the rows of measurements that predict each other, and of the ground truth."""
        taken = self.by_name.values()
        first, last = ([each[place] for each in taken] for place in (0, -1))
        medians = column(first, "median_ms"), column(last, "median_ms")
        yield self.row("last measurement, predicted by the first", device_s(first), *medians)
        halves = [[row for each in taken for row in each[start::2]] for start in (0, 1)]
        other, half = (settled(rows, list(self.by_name))[0] for rows in halves)
        yield self.row(
            "half of the measurements, predicted by the others, drift-corrected", device_s(halves[0]), other, half
        )
        yield self.bound()

    def coverage(self, process: PartProcess) -> str:
        """Return the share of ground truths within the 95% interval, widened by their own error."""
        predicted = process.predict(self.counts)
        half = 1.96 * np.hypot(process.predict_std(self.counts) / predicted, np.sqrt(np.diag(self.covariance)))
        return f"{(np.abs(self.truth / predicted - 1) <= half).mean():.1%}"

    def row(self, way: str, seconds: float, predicted: Vector, truth: Vector | None = None, coverage: str = "") -> str:
        found = self._errors(predicted, self.truth if truth is None else truth)
        return _shown(way, f"{seconds:.0f}", found, coverage)

    def bound(self) -> str:
        """Return the row of the ground truth with errors as large as its own, the mean of some draws.

        Without bias: the level is common to all methods.
        """
        rng = np.random.default_rng(0)
        errors = rng.multivariate_normal(np.zeros(len(self.truth)), self.covariance, DRAWS)
        found = np.mean([self._errors(self.truth * np.exp(each), self.truth) for each in errors], axis=0)
        found[BIASES] = np.nan
        return _shown("ground truth, within its own error", "", found, "")

    def _errors(self, predicted: Vector, truth: Vector) -> Vector:
        """Return the errors that ``COLUMNS`` names, from MAPE to pooled tau."""
        signed = predicted / truth - 1
        error, level = np.abs(signed), np.median(predicted / truth)
        rows = [self.genes[:, 0] == number for number in range(len(SPACE.resolutions))]
        taus = [float(kendalltau(predicted[each], truth[each]).statistic) for each in [*rows, rows[0] | True]]
        within = [(error <= share).mean() for share in (0.05, 0.1)]
        biases = signed.mean(), signed[self.near].mean()
        drift_corrected = np.abs(predicted / truth / level - 1).mean()
        return np.array([error.mean(), np.quantile(error, 0.95), *within, *biases, drift_corrected, *taus])


def _shown(way: str, seconds: str, errors: Vector, coverage: str) -> str:
    formats = ["{:.1%}"] * 4 + ["{:+.1%}"] * 2 + ["{:.1%}"] + ["{:.3f}"] * 5
    numbers = ["" if np.isnan(error) else each.format(error) for each, error in zip(formats, errors, strict=True)]
    return f"| {' | '.join([way, seconds, *numbers, coverage])} |"


def settled(rows: Rows, names: Sequence[str]) -> tuple[Vector, Vector]:
    """Estimate the latencies (N,) of subnets from repeated measurements, and the covariance of their logarithms.

    Generalised least squares of the logarithms on the subnets alone, for noise
    and drift of the machine as restricted likelihood with the fit's weak priors
    finds them (H. D. Patterson, R. Thompson, Biometrika 58, 1971): it uses nothing that
    a method predicts from. No measurement is dropped: other measurements at the same
    time distinguish a drift of a tenth from an outlier.
    """
    subnet = np.array([names.index(row["name"]) for row in rows])
    logs = np.log(column(rows, "median_ms"))
    medians = np.array([np.median(logs[subnet == number]) for number in range(len(names))])
    shared = drift_covariances(moments(rows), np.exp(np.median(medians) - medians[subnet]))
    design = np.eye(len(names))[subnet]
    within = null_space(design.T)  # what does not depend on the subnets
    if not within.size:
        return np.exp(medians), np.zeros((len(names), len(names)))
    terms = {name: within.T @ each @ within for name, each in shared.items()}
    start = {name: initial_variance(name) for name in [*terms, "noise"]}
    variances = estimate_variances(terms, within.T @ logs, np.ones(within.shape[1]), start)
    total = np.diag(noise_variance(variances, np.ones(len(logs))))
    total += sum(variances[name] * each for name, each in shared.items())
    weighed = np.linalg.solve(total, design)
    covariance = np.linalg.inv(design.T @ weighed)
    return np.exp(covariance @ weighed.T @ logs), covariance


def table(rows: Rows, others: Sequence[PartCosts] = ()) -> PartProcess:
    """Fit edgenas's latency table to measured subnets, with source tables."""
    return fit_part_costs(SPACE, genes_of(rows), column(rows, "median_ms"), moments(rows), others)


def ablated_tables(rows: Rows) -> Iterator[tuple[str, PartProcess]]:
    """Yield the fit without each of its terms in turn, by the name of the term."""
    basis, counts, values = part_basis(SPACE), part_count_matrix(SPACE, genes_of(rows)), column(rows, "median_ms")
    when, unknown = moments(rows), np.full(len(rows), np.nan)
    bases = {
        name: replace(basis, similarities={each: matrix for each, matrix in basis.similarities.items() if each != name})
        for name in basis.similarities
    }
    bases["detail"] = replace(basis, detail_features=np.zeros_like(basis.detail_features))
    times = {
        "drift and drift added": Moments(np.zeros(len(rows)), when.probe_ms),
        "probe": Moments(when.at_s, unknown),
        "drift, drift added and probe": Moments(np.zeros(len(rows)), unknown),
    }
    yield from ((name, fit_part_process(one, counts, values, when)) for name, one in bases.items())
    yield from ((name, fit_part_process(basis, counts, values, one)) for name, one in times.items())


def first_of_each(rows: Rows) -> list[dict[str, Any]]:
    """Return the first measurement of each name."""
    return [*{row["name"]: row for row in reversed(rows)}.values()]


def isolated(rows: Rows) -> Vector:
    """Return the median cost (P,) of each part as a model of its own."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["name"], []).append(row["median_ms"])
    return np.array([np.median(found[part.key]) for part in SPACE.distinct_parts])


def forests(rows: Rows) -> Vector:
    """Predict the cost (P,) of each part as the sum of its kernels, by one random forest per kind of kernel."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        found.setdefault(tuple(json.loads(row["name"])), []).append(row["median_ms"])
    kinds: dict[str, list[tuple[Any, ...]]] = {}
    for key in found:
        kinds.setdefault(key[0], []).append(key)
    trained = {
        kind: RandomForestRegressor(100, random_state=0).fit(
            [features(key) for key in keys], [np.median(found[key]) for key in keys]
        )
        for kind, keys in kinds.items()
    }
    needed = {key for part in SPACE.distinct_parts for key in kernel_keys(part).values()}
    costs = {key: float(trained[key[0]].predict([features(key)])[0]) for key in needed}
    return np.array([sum(costs[key] for key in kernel_keys(part).values()) for part in SPACE.distinct_parts])


def features(key: tuple[Any, ...]) -> list[float]:
    """Return a kernel's features: sizes, work, traffic, and 1 for an activation other than ReLU."""
    kind, size, entry, out, kernel, stride, extra = key
    after = (size / stride) ** 2
    work = after * kernel**2 * out * (1 if kind == "depthwise" else entry)
    return [size, entry, out, kernel, stride, work, size**2 * entry + after * out, float(extra not in ("", "relu"))]


def operators(rows: Rows) -> Vector:
    """Return the mean cost (P,) of each part by the profiled times of its nodes, ms; 0 if it never occurred."""
    place = {part: number for number, part in enumerate(SPACE.distinct_parts)}
    found: list[list[float]] = [[] for _ in place]
    for row in rows:
        architecture = SPACE.from_id(row["name"])
        sums = dict.fromkeys(architecture.parts, 0.0)
        at = next(iter(sums))
        for node, spent in row["nodes_us"].items():
            # Reorders between layouts have names of their own: they are counted with what runs before them.
            at = next((name for name in sums if re.match(rf"{re.escape(name)}(\.|_|$)", node)), at)
            sums[at] += spent / 1000
        for name, spent in sums.items():
            found[place[architecture.parts[name]]].append(spent)
    return np.array([np.mean(each) if each else 0.0 for each in found])


def compared(record: Record, near: set[str], *, ablate: bool) -> Iterator[str]:
    """Yield the rows of a target; to ``ablate``, those of the table without each of its terms."""
    held_out = HeldOutSubnets(record.of("held out"), near)
    subnets = record.of("subnets")
    for share in SHARES:
        part = subnets[: max(20, int(share * len(subnets)))]
        process = table(part)
        way = f"latency table, {len(part)} subnets"
        yield held_out.row(way, device_s(part), process.predict(held_out.counts), coverage=held_out.coverage(process))
    if ablate:
        exponent, variance = process.probe_exponent
        yield f"exponent of the speed probe: {exponent:.2f}, standard deviation {variance**0.5:.2f}"
        for name, process in ablated_tables(subnets):
            yield held_out.row(f"without {name}", device_s(subnets), process.predict(held_out.counts))
        return
    if parts := first_of_each(record.of("parts")):
        half = subnets[: len(subnets) // 2]
        process = table(half, [PartCosts(0.0, isolated(parts))])
        way = f"trial: {len(half)} subnets and each isolated part once"
        yield held_out.row(
            way, device_s(half + parts), process.predict(held_out.counts), coverage=held_out.coverage(process)
        )
    macs, seconds = SPACE.macs(genes_of(subnets)), record.spent("subnets")
    line = fit_non_negative(np.column_stack([np.ones(len(macs)), macs]), column(subnets, "median_ms"))
    yield held_out.row("linear in MACs, same subnets", seconds, line[0] + line[1] * SPACE.macs(held_out.genes))
    others = (
        ("sum of isolated parts", "parts", isolated),
        ("random forests on isolated kernels", "kernels", forests),
        ("sum of profiled operators", "operators", operators),
    )
    for name, way, fit in others:
        if rows := record.of(way):
            yield held_out.row(name, record.spent(way), held_out.counts @ fit(rows))
    if held_out.repeated:
        yield from held_out.noise_floor()


def subnets_near_front(record: Record) -> set[str]:
    """Return the held-out subnets near the front of a search: those marked so, or those of the generator."""
    held_out = record.of("held out")
    if any("near" in row for row in held_out):
        return {row["name"] for row in held_out if row["near"]}
    genes = held_out_subnets(Path(os.environ["EDGENAS_DATA"]) / "ofa" / "acc_predictor.pth")
    return {architecture.id for architecture in SPACE.decode(genes[HELD_OUT // 2 :])}


def keep(record: Record, near: set[str], path: Path) -> None:
    """Write the medians of a record, gzipped: without the operators, times from zero, rounded."""
    kept = [row for row in record.rows if row["way"] in KEPT_WAYS]
    start_s = min(row["taken_s"] for row in kept)
    rows = [
        {
            **{name: row[name] for name in ("way", "name", "turn", "validity")},
            **{name: float(f"{row[name]:.6g}") for name in ("median_ms", "probe_ms", "device_s")},
            "taken_s": round(row["taken_s"] - start_s, 3),
            **({"near": row["name"] in near} if row["way"] == "held out" else {}),
        }
        for row in kept
    ]
    path.write_bytes(gzip.compress("".join(f"{json.dumps(row)}\n" for row in rows).encode(), mtime=0))


def main() -> None:
    """Print a table for each target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--ablate", action="store_true", help="take away each term of the fit in turn")
    options = parser.parse_args()
    for path in sorted([*options.out.glob("*.jsonl"), *options.out.glob("*.jsonl.gz")]):
        target, record = path.name.partition(".")[0], Record(path)
        near = subnets_near_front(record)
        if options.keep:
            keep(record, near, options.keep / f"{target}.jsonl.gz")
        print(f"\n{target}\n\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for row in compared(calm(record), near, ablate=options.ablate):
            print(row, flush=True)


if __name__ == "__main__":
    main()
