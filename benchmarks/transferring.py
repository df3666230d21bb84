"""Evaluate transfer: a new target from few measurements and source tables, from recordings of predicting.py.

python -m benchmarks.transferring OUT

For each pair of targets in OUT, all of one machine, and for all others together:
the source table, from all its subnets, is the prior for 10, 20 or 50 subnets of
the new target. For comparison: the source table alone, scaled by the median
ratio to the same subnets; and the same subnets without a prior. Spearman,
Kendall tau and MAPE on the held-out subnets, means over draws of subnets.

Then what limits it. Plain features (calls, work, traffic) need no other target,
so a prior saves little if two targets have little in common beyond them.
Columns: the correlation of the deviations from plain features over the held-out
subnets, corrected for the noise of the ground truth; the error that plain
features leave; the error left by the best multiple of the other target's
deviations; the error of the ground truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau, spearmanr

from benchmarks.predicting import SPACE, Record, column, moments
from benchmarks.predictors import HeldOutSubnets, Rows, calm, genes_of, table
from edgenas.costs import Vector
from edgenas.profilers.latency.fit import PartCosts, part_basis, part_count_matrix
from edgenas.profilers.latency.gaussian_process import PartProcess
from edgenas.profilers.latency.prior import Observations, Prior

COUNTS, SEEDS = (10, 20, 50), 6
WAYS = ("scaled table", "table as prior", "no prior")


@dataclass(frozen=True)
class Measured:
    """The recordings of one target: all its subnets, their table, and the held-out ones."""

    rows: Rows
    table: PartProcess
    held_out: HeldOutSubnets

    @classmethod
    def of(cls, record: Record) -> Measured:
        rows = record.of("judging") + record.of("subnets")
        return cls(rows, table(rows), HeldOutSubnets(record.of("held out"), near=set()))

    @property
    def costs(self) -> PartCosts:
        return PartCosts(self.table.overhead, self.table.costs)

    def draws(self, count: int) -> list[Rows]:
        """Draw ``count`` subnets several times, in the order of measuring."""
        drawn = (np.random.default_rng(seed).permutation(len(self.rows))[:count] for seed in range(SEEDS))
        return [sorted((self.rows[place] for place in each), key=lambda row: float(row["taken_s"])) for each in drawn]

    def from_few(self, count: int, others: Sequence[PartCosts]) -> list[Vector]:
        """Evaluate tables from ``count`` subnets with source tables."""
        return [
            rank_and_error(table(rows, others).predict(self.held_out.counts), self.held_out.truth)
            for rows in self.draws(count)
        ]

    @cached_property
    def without_prior(self) -> dict[int, list[Vector]]:
        """Errors without a prior, by number of subnets."""
        return {count: self.from_few(count, ()) for count in COUNTS}

    def from_copy(self, count: int, other: PartProcess) -> list[Vector]:
        """Evaluate another target's table, scaled by the median ratio to ``count`` subnets."""
        copied = other.predict(self.held_out.counts)
        there = [
            column(rows, "median_ms") / other.predict(part_count_matrix(SPACE, genes_of(rows)))
            for rows in self.draws(count)
        ]
        return [rank_and_error(np.median(ratio) * copied, self.held_out.truth) for ratio in there]

    @cached_property
    def _plain(self) -> Prior:
        seen, ones = part_count_matrix(SPACE, genes_of(self.rows)), np.ones(len(self.rows))
        observations = Observations(seen, column(self.rows, "median_ms"), moments(self.rows), ones)
        return Prior.fit(part_basis(SPACE), observations)

    def beyond_plain(self, counts: Vector, latency: Vector) -> Vector:
        """Return the logarithms of latencies (N,) divided by the prediction of plain features."""
        return np.asarray(np.log(latency / (self._plain.overhead + counts @ self._plain.base)))


def print_transfer(name: str, others: Sequence[Measured], mine: Measured) -> None:
    """Print the rows of source tables for a target; the scaled copy only for a single one."""
    known = [other.costs for other in others]
    copied = others[0].table if len(others) == 1 else None
    if copied is not None:
        unscaled = rank_and_error(copied.predict(mine.held_out.counts), mine.held_out.truth, scaled=False)
        print_row(name, 0, [unscaled], [], [])
    for count in COUNTS:
        copies = [] if copied is None else mine.from_copy(count, copied)
        print_row(name, count, copies, mine.from_few(count, known), mine.without_prior[count])


def print_row(name: str, count: int, *ways: Sequence[Vector]) -> None:
    print(f"| {name} | {count} | {' | '.join(means(each) for each in ways)} |", flush=True)


def print_limit(name: str, other: Measured, mine: Measured) -> None:
    """Print what limits one pair."""
    held_out = mine.held_out
    own = mine.beyond_plain(held_out.counts, held_out.truth)
    theirs = other.beyond_plain(held_out.counts, other.table.predict(held_out.counts))
    noise = np.diag(held_out.covariance)
    alike = float(np.corrcoef(own, theirs)[0, 1] / np.sqrt(1 - noise.mean() / own.var()))
    without, together = (np.polynomial.Polynomial.fit(theirs, own, degree)(theirs) for degree in (0, 1))
    left = [float(np.abs(own - fitted).mean()) for fitted in (without, together)]
    truth = float(np.sqrt(2 / np.pi * noise).mean())  # the mean size of normal errors
    print(f"| {name} | {alike:+.2f} | {left[0]:.1%} | {left[1]:.1%} | {truth:.1%} |", flush=True)


def rank_and_error(predicted: Vector, truth: Vector, *, scaled: bool = True) -> Vector:
    """Return Spearman, Kendall tau and, if the scale is the target's, MAPE."""
    error = float(np.abs(predicted / truth - 1).mean()) if scaled else np.nan
    ranks = (float(statistic(predicted, truth).statistic) for statistic in (spearmanr, kendalltau))
    return np.array([*ranks, error])


def means(found: Sequence[Vector]) -> str:
    if not found:
        return "-"
    spearman, tau, mape = np.mean(found, axis=0).tolist()
    return f"{spearman:.3f}, {tau:.3f}, {'-' if np.isnan(mape) else f'{mape:.1%}'}"


def main() -> None:
    """Print all pairs of the targets in a folder, as tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    paths = sorted(parser.parse_args().out.glob("*.jsonl"))
    all_of_them = {path.stem: Measured.of(calm(Record(path))) for path in paths}
    pairs = [*permutations(all_of_them, 2)]
    print(f"| from, to | subnets | {' | '.join(WAYS)} |\n|---|---|---|---|---|")
    for first, second in pairs:
        print_transfer(f"{first} -> {second}", [all_of_them[first]], all_of_them[second])
    for name, mine in all_of_them.items():
        print_transfer(f"all others -> {name}", [each for each in all_of_them.values() if each is not mine], mine)
    print("\n| from, to | correlation | plain features | plus the other target | ground truth |\n|---|---|---|---|---|")
    for first, second in pairs:
        if all_of_them[second].held_out.repeated:
            print_limit(f"{first} -> {second}", all_of_them[first], all_of_them[second])


if __name__ == "__main__":
    main()
