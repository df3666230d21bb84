"""A new target from few measurements and another target's table, from what benchmarks/predicting.py measured.

python -m benchmarks.transferring OUT

From each target to each other in OUT, all of one machine: the table of the one,
from all its subnets, is the prior for 10, 20 or 50 of the other's. Beside that
the one's table alone, scaled by the median ratio to the same subnets, whose
ranking is the one's; and the same subnets without a prior. Spearman, Kendall
tau and MAPE on the held-out subnets, means over draws of subnets.

Then what limits it. Plain features, work and traffic and calls, need no other
target. So a prior can only save what the targets have in common beyond these: the
correlation of that over the held-out subnets, the error that plain features
leave, and that left by as much of the other's as fits the held-out subnets best.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau, spearmanr

from benchmarks.predicting import SPACE, Record
from benchmarks.predictors import Judge, calm, column, genes_of, table
from edgenas.costs import Vector
from edgenas.profilers.fit import PartCosts, basis_of, count_parts, fit_parts
from edgenas.profilers.part_prior import Evidence, Prior
from edgenas.profilers.part_process import PartProcess

COUNTS, SEEDS = (0, 10, 20, 50), 6
WAYS = ("copied table", "the table as a prior", "no prior")


def print_transfer(name: str, other: PartProcess, record: Record) -> None:
    """The rows of one pair: what the table of another target gives for the target of this record."""
    rows = record.of("judging") + record.of("subnets")
    judge = Judge(record.of("held out"), near=set())
    copied = other.predict(judge.counts)
    known = [PartCosts(other.overhead, other.costs)]
    for count in COUNTS:
        found: dict[str, list[Vector]] = {way: [] for way in WAYS}
        for seed in range(SEEDS if count else 1):
            chosen = [rows[place] for place in np.random.default_rng(seed).permutation(len(rows))[:count]]
            chosen.sort(key=lambda row: float(row["taken_s"]))
            if not count:
                found["copied table"].append(judged(copied, judge.truth, scaled=False))
                continue
            genes, latency, at_s = genes_of(chosen), column(chosen, "median_ms"), column(chosen, "taken_s")
            scale = float(np.median(latency / other.predict(count_parts(SPACE, genes))))
            priors = {"the table as a prior": known, "no prior": []}
            found["copied table"].append(judged(scale * copied, judge.truth))
            for way, others in priors.items():
                process = fit_parts(SPACE, genes, latency, at_s, others)
                found[way].append(judged(process.predict(judge.counts), judge.truth))
        cells = [means(each) for each in found.values()]
        print(f"| {name} | {count} | {' | '.join(cells)} |", flush=True)


def print_limit(name: str, other: PartProcess, first: Record, second: Record) -> None:
    """The row of one pair."""
    judge = Judge(second.of("held out"), near=set())
    mine = beyond_plain(second, judge.counts, judge.truth)
    theirs = beyond_plain(first, judge.counts, other.predict(judge.counts))
    alike = float(np.corrcoef(mine, theirs)[0, 1])
    without, together = (np.polynomial.Polynomial.fit(theirs, mine, degree)(theirs) for degree in (0, 1))
    left, less = (float(np.abs(mine - fitted).mean()) for fitted in (without, together))
    print(f"| {name} | {alike:+.2f} | {left:.1%} | {less:.1%} |", flush=True)


def beyond_plain(record: Record, counts: Vector, latency: Vector) -> Vector:
    """The logarithms of latencies (N,) over what plain features give, weighed as all subnets of a record say."""
    rows = record.of("judging") + record.of("subnets")
    seen = count_parts(SPACE, genes_of(rows))
    evidence = Evidence(seen, column(rows, "median_ms"), column(rows, "taken_s"), np.ones(len(rows)))
    prior = Prior.of(basis_of(SPACE), evidence)
    return np.asarray(np.log(latency / (prior.overhead + counts @ prior.base)))


def judged(predicted: Vector, truth: Vector, *, scaled: bool = True) -> Vector:
    """Spearman, Kendall tau and, where the scale is the target's own, MAPE."""
    error = float(np.abs(predicted / truth - 1).mean()) if scaled else np.nan
    ranks = (float(statistic(predicted, truth).statistic) for statistic in (spearmanr, kendalltau))
    return np.array([*ranks, error])


def means(found: Sequence[Vector]) -> str:
    if not found:
        return "-"
    spearman, tau, mape = np.mean(found, axis=0).tolist()
    return f"{spearman:.3f}, {tau:.3f}, {'-' if np.isnan(mape) else f'{mape:.1%}'}"


def main() -> None:
    """All pairs of the targets in a folder, as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    paths = sorted(parser.parse_args().out.glob("*.jsonl"))
    records = {path.stem: calm(Record(path)) for path in paths}
    tables = {name: table(record.of("judging") + record.of("subnets")) for name, record in records.items()}
    print(f"| from, to | subnets | {' | '.join(WAYS)} |\n|---|---|---|---|---|")
    for first, second in permutations(records, 2):
        print_transfer(f"{first} -> {second}", tables[first], records[second])
    print("\n| from, to | correlation | plain features | with the other's |\n|---|---|---|---|")
    for first, second in permutations(records, 2):
        print_limit(f"{first} -> {second}", tables[first], records[first], records[second])


if __name__ == "__main__":
    main()
