"""Measure the search: against exact fronts, published finders, tables of ground truth, and the clock.

EDGENAS_DATA=FOLDER python -m benchmarks.search FIGURE OUT [--seeds 10] [--ofa FOLDER]

FIGURE is 1 to 5. OUT is a folder; a line is appended to ``figure-N.jsonl`` in it after each run, and runs that are
there are not repeated, so that a figure which was interrupted goes on. Each figure prints means and 95% intervals over
seeds (Student's t).

1. MobileNetV3 w1.2 with the Note10 tables and an additive accuracy model: the share of the exact front's hypervolume.
   The model is the least-squares fit of one-hot choices to the authors' predictor; the exact front of sums of parts is
   computed by dynamic programming over the stages.
2. The same tables with the authors' predictor: accuracy within 20, 25, 30, 40 and 50 ms. With ``--ofa FOLDER``, a
   folder with the package ofa (``pip install --no-deps --target FOLDER ofa``), their finder runs beside it.
3. NAS-Bench-201, accuracy against latency on a Raspberry Pi 4 and a Pixel 3: hypervolume over evaluations.
4. The authors' predictor as the truth of few evaluations: hypervolume after 75, 150 and 300.
5. Time by evaluations and by devices.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from edgenas.accuracy import ReleasedPredictor
from edgenas.costs import CostModel, Genes, Vector
from edgenas.data.torchvision_import import import_torchvision
from edgenas.profilers import LatencyTable, PublishedTables
from edgenas.registry import STRATEGIES
from edgenas.search import EVALUATIONS, Front, MeasuredTable, Problem, hypervolume, nondominated_mask, search_front
from edgenas.search.evaluator import Evaluator
from edgenas.space import MobileNetV3

DATA = Path(os.environ.get("EDGENAS_DATA", ""))
BUDGETS_MS = (20, 25, 30, 40, 50)
COUNTS = (50, 100, 200, 500, 1000)
FEW = (75, 150, 300)
STRATEGY_NAMES = (
    "nsga2", "pymoo's NSGA-II", "random", "regularized_evolution", "reinforce", "predictor_guided", "bayesian",
)  # fmt: skip
PEER = STRATEGY_NAMES[1]
FEW_SEEDS = {"bayesian": 5}  # it takes up to a minute for a thousand evaluations


class Results:
    """The runs of a figure in a file of JSON lines; one that is there is not run again."""

    def __init__(self, out: Path, figure: int) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._path = out / f"figure-{figure}.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self._known = {line["key"]: line["values"] for line in map(json.loads, lines)}

    def run(self, key: str, function: Callable[..., Sequence[float]], *arguments: Any) -> list[float]:
        """Return the numbers of a run, which is done where the file does not have it."""
        if key not in self._known:
            self._known[key] = list(map(float, function(*arguments)))
            with self._path.open("a") as file:
                file.write(json.dumps({"key": key, "values": self._known[key]}) + "\n")
            print(f"{key}: {' '.join(f'{value:.4g}' for value in self._known[key])}", file=sys.stderr, flush=True)
        return list(self._known[key])


def print_row(name: str, runs: Sequence[Sequence[float]], digits: Sequence[int]) -> None:
    """Print a row of a Markdown table: the mean of each column, with the half width of its 95% interval."""
    values = np.array(runs)
    half = student_t.ppf(0.975, max(len(values) - 1, 1)) * values.std(axis=0, ddof=min(1, len(values) - 1))
    half /= np.sqrt(len(values))
    cells = [
        f"{mean:.{places}f} ± {each:.{places}f}" if len(values) > 1 else f"{mean:.{places}f}"
        for mean, each, places in zip(values.mean(axis=0), half, digits, strict=True)
    ]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def print_head(*columns: str) -> None:
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def timed(function: Callable[[], Front]) -> tuple[Front, float, float]:
    """Return a front with the seconds and the processor's seconds that it took."""
    began, began_cpu = time.perf_counter(), time.process_time()
    front = function()
    return front, time.perf_counter() - began, time.process_time() - began_cpu


# -- the published space ----------------------------------------------------------------


@cache
def published() -> tuple[MobileNetV3, LatencyTable, ReleasedPredictor]:
    """The space of width 1.2, its latency table of the Note10, and the authors' accuracy predictor."""
    tables = PublishedTables.load(DATA / "ofa" / "note10")
    space = MobileNetV3(width=1.2, resolutions=tables.resolutions)
    predictor = ReleasedPredictor.load_checkpoint(DATA / "ofa" / "acc_predictor.pth", space)
    return space, tables.to_latency_table(space, "note10"), predictor


def one_hot(space: MobileNetV3, genes: Genes) -> Vector:
    dead = space.dead_genes(genes)
    columns = [
        (genes[:, column, None] == np.arange(radix)) & ~dead[:, column, None]
        for column, radix in enumerate(space.radices.tolist())
    ]
    return np.concatenate(columns, axis=1).astype(np.float64)


@cache
def additive_weights() -> list[Vector]:
    """The accuracy that each value of each gene adds, by least squares on 20,000 predicted subnets."""
    space, _, predictor = published()
    genes = space.sample(20_000, np.random.default_rng(0))
    weights, *_ = np.linalg.lstsq(one_hot(space, genes), predictor(genes), rcond=None)
    return np.split(weights, np.cumsum(space.radices)[:-1])


def additive_accuracy(genes: Genes) -> Vector:
    accuracy: Vector = one_hot(published()[0], genes) @ np.concatenate(additive_weights())
    return accuracy


def best_points(points: Vector) -> Vector:
    """Return the rows (latency, accuracy) that no other one beats, by latency."""
    points = points[np.lexsort((-points[:, 1], points[:, 0]))]
    best = np.concatenate([[-np.inf], np.maximum.accumulate(points[:, 1])[:-1]])
    return points[points[:, 1] > best]


def sums(one: Vector, other: Vector) -> Vector:
    """Return the best of all sums of a row of one set and a row of another."""
    found = one[:0]
    for start in range(0, len(one), 2000):
        pairs = (one[start : start + 2000, None, :] + other).reshape(-1, 2)
        found = best_points(np.concatenate([found, best_points(pairs)]))
    return found


@cache
def exact_front() -> Vector:
    """The exact front (latency, accuracy) of the additive problem: sums of stages, of which only the best are kept."""
    space, table, _ = published()
    weights, found, first = additive_weights(), np.empty((0, 2)), 1 + len(space.stages)
    costs = np.column_stack([np.zeros(len(table.part_ms)), table.part_ms])  # the first column: no part
    by_place = {slot.name: (slot, numbers) for slot, numbers in zip(space.slots, space._part_numbers, strict=True)}
    blocks = space._blocks
    for row in range(len(space.resolutions)):
        fixed = sum(
            costs[row, numbers[row] + 1] for slot, numbers in by_place.values() if not slot.name.startswith("stage")
        )
        front = np.array([[fixed + table.overhead_ms, weights[0][row]]])
        for stage in range(len(space.stages)):
            options, prefix = [], np.zeros((1, 2))
            places = [number for number, (of_stage, _) in enumerate(blocks) if of_stage == stage]
            for place, number in enumerate(places):
                _, numbers = by_place[f"stage{stage + 1}.block{place + 1}"]
                deepest = numbers.reshape(space.radices[[0, 1 + stage, first + number, first + len(blocks) + number]])
                latencies = costs[row, deepest[row, -1] + 1]
                gains = weights[first + number][:, None] + weights[first + len(blocks) + number]
                prefix = sums(prefix, np.column_stack([latencies.ravel(), gains.ravel()]))
                depths = space.genes[1 + stage].values
                if place + 1 in depths:
                    options.append(prefix + np.array([0, weights[1 + stage][depths.index(place + 1)]]))
            front = sums(front, best_points(np.concatenate(options)))
        found = best_points(np.concatenate([found, front]))
    return found


def figure_1(results: Results, seeds: int, ofa: Path | None) -> None:
    """Print the share of the exact front's hypervolume that searches and random subnets reach."""
    space, table, _ = published()
    began = time.perf_counter()
    exact = exact_front() * [1, -1]
    print(f"\nexact front: {len(exact)} points in {time.perf_counter() - began:.0f} s")
    ideal, nadir = exact.min(axis=0), exact.max(axis=0)
    whole = hypervolume(exact, ideal, nadir)
    costs: dict[str, CostModel] = {"latency_ms": table.latency_ms, "accuracy": additive_accuracy}
    problem = Problem(space, costs, tuple(costs))

    def share(genes: Genes) -> float:
        objectives = np.column_stack([table.latency_ms(genes), -additive_accuracy(genes)])
        best = exact[np.searchsorted(exact[:, 0], objectives[:, 0] + 1e-9) - 1, 1]  # at most this latency
        assert (objectives[:, 1] > best - 1e-6).all(), "a subnet beats the exact front"
        return 100 * hypervolume(objectives[nondominated_mask(objectives)], ideal, nadir) / whole

    def searched(seed: int, evaluations: int) -> list[float]:
        front, seconds, cpu = timed(lambda: search_front(problem, seed=seed, evaluations=evaluations))
        return [share(front.genes), seconds, cpu]

    def random_share(seed: int) -> list[float]:
        return [share(space.sample(10_000, np.random.default_rng(seed)))]

    print_head("way", "share of the exact hypervolume, %", "seconds", "of the processor")
    for evaluations in (10_000, 70_000):
        rows = [results.run(f"nsga2 {evaluations} {seed}", searched, seed, evaluations) for seed in range(seeds)]
        print_row(f"edgenas, {evaluations:,} evaluations", rows, (2, 2, 2))
    rows = [results.run(f"random {seed}", random_share, seed) for seed in range(seeds)]
    print_row("10,000 random subnets", [[*row, 0, 0] for row in rows], (2, 0, 0))


def figure_2(results: Results, seeds: int, ofa: Path | None) -> None:
    """Print accuracies within latency budgets by one search each, and by the authors' finder, a run for each budget."""
    space, table, predictor = published()
    costs: dict[str, CostModel] = {
        "accuracy": predictor, "latency_ms": table.latency_ms, "peak_bytes": table.peak_bytes
    }  # fmt: skip

    def searched(seed: int, objectives: tuple[str, ...]) -> list[float]:
        problem = Problem(space, {name: costs[name] for name in objectives}, objectives)
        front, seconds, cpu = timed(lambda: search_front(problem, seed=seed))
        return [*(100 * front.accuracy[front.latency_ms <= budget].max() for budget in BUDGETS_MS), seconds, cpu]

    def peer(seed: int, problem: Problem) -> list[float]:
        began, began_cpu = time.perf_counter(), time.process_time()
        accuracy, latency = run_pymoo(problem, EVALUATIONS, seed).T
        spent = time.perf_counter() - began, time.process_time() - began_cpu
        return [*(-100 * accuracy[latency <= budget].min() for budget in BUDGETS_MS), *spent]

    print_head("way", *(f"top-1 within {budget} ms, %" for budget in BUDGETS_MS), "seconds", "of the processor")
    digits = (*[2] * len(BUDGETS_MS), 2, 2)
    for objectives in (("accuracy", "latency_ms"), tuple(costs)):
        name = f"edgenas, {len(objectives)} objectives"
        rows = [results.run(f"{name} {seed}", searched, seed, objectives) for seed in range(seeds)]
        print_row(name, rows, digits)
    problem = Problem(space, {name: costs[name] for name in ("accuracy", "latency_ms")}, ("accuracy", "latency_ms"))
    rows = [results.run(f"{PEER} {seed}", peer, seed, problem) for seed in range(seeds)]
    print_row(f"{PEER}, {EVALUATIONS:,} evaluations", rows, digits)
    if ofa is not None:
        rows = [results.run(f"ofa {seed}", run_their_finder, ofa, seed) for seed in range(min(seeds, 3))]
        print_row("their finder, five runs", rows, digits)


def run_their_finder(folder: Path, seed: int) -> list[float]:
    """Run the authors' finder once for each budget, with their classes for its costs, on the published files."""
    import random

    import torch

    import_torchvision("their finder")  # also one that is built for another torch
    sys.path.insert(0, str(folder))
    sys.modules.setdefault("gdown", types.ModuleType("gdown"))  # it downloads weights, which nobody asks for here
    import yaml

    theirs = importlib.import_module("ofa.tutorial")

    tables = object.__new__(theirs.LatencyTable)  # its constructor downloads the tables
    tables.latency_tables = {}
    for path in sorted((DATA / "ofa" / "note10").glob("*.yaml")):
        estimator = object.__new__(sys.modules["ofa.tutorial.latency_table"].LatencyEstimator)
        estimator.lut = yaml.safe_load(path.read_text())
        tables.latency_tables[int(path.name.partition("_")[0])] = estimator
    predictor = theirs.AccuracyPredictor(pretrained=False, device="cpu")
    weights = torch.load(DATA / "ofa" / "acc_predictor.pth", map_location="cpu", weights_only=True)
    predictor.model.load_state_dict(weights)
    random.seed(seed)
    np.random.seed(seed)
    began, began_cpu, found = time.perf_counter(), time.process_time(), []
    with Path(os.devnull).open("w") as quiet, redirect_stdout(quiet), redirect_stderr(quiet):
        for budget in BUDGETS_MS:
            finder = theirs.EvolutionFinder("note10", budget, tables, predictor)
            _, best = finder.run_evolution_search()
            found.append(100 * float(best[0]))
    return [*found, time.perf_counter() - began, time.process_time() - began_cpu]


# -- tables and few evaluations --------------------------------------------------------------


def objectives_in_order(problem: Problem, strategy: str, evaluations: int, seed: int) -> Vector:
    """Return the objectives of everything that a strategy evaluates, in its order."""
    if strategy == PEER:
        return run_pymoo(problem, evaluations, seed)
    evaluator = Evaluator(problem, evaluations, strategy)
    evaluator(problem.first_genes)
    STRATEGIES.load(strategy)(problem, evaluator, budget=evaluator.left, seed=seed, progress=lambda done, total: None)
    return evaluator.costs.objectives


def run_pymoo(problem: Problem, evaluations: int, seed: int) -> Vector:
    """Run pymoo's NSGA-II on integers as its documentation shows it, with its population of 100."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem as PymooProblem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    found: list[Vector] = []

    class Integers(PymooProblem):  # type: ignore[misc] # pymoo has no types
        def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            genes = problem.space.canonical(x.astype(np.int64))
            out["F"] = problem.costs_of(problem.evaluate(genes)).objectives
            found.append(out["F"])

    operators = {"prob": 1.0, "eta": 3.0, "vtype": float, "repair": RoundingRepair()}
    algorithm = NSGA2(
        pop_size=100, sampling=IntegerRandomSampling(), crossover=SBX(**operators), mutation=PM(**operators),
        eliminate_duplicates=True,
    )  # fmt: skip
    radices = problem.space.radices
    integers = Integers(n_var=len(radices), n_obj=len(problem.objectives), xl=0, xu=radices - 1, vtype=int)
    minimize(integers, algorithm, ("n_eval", evaluations), seed=seed)
    return np.concatenate(found)[:evaluations]


def seeds_of(strategy: str, seeds: int) -> range:
    return range(min(seeds, FEW_SEEDS.get(strategy, seeds)))


def figure_3(results: Results, seeds: int, ofa: Path | None) -> None:
    """Print the share of the true hypervolume of NAS-Bench-201 over evaluations, for every strategy."""
    table = MeasuredTable.load(DATA / "nasbench201" / "nasbench201.csv.gz")
    every = table.canonical(np.stack(np.unravel_index(np.arange(table.size), table.radices), axis=1))
    for latency in ("raspi4_ms", "pixel3_ms"):
        names = ["cifar10_top1", latency]
        problem = replace(table.problem(names, maximised=names[:1]), real=names)
        truth = problem.costs_of(problem.evaluate(every)).objectives
        front = truth[nondominated_mask(truth)]
        ideal, nadir = front.min(axis=0), truth.max(axis=0)
        print(f"\n{latency}: {len(front)} of {table.size} cells are on the front")
        print_head("strategy", *(f"{count} evaluations" for count in COUNTS), "seconds")

        def shares(
            strategy: str, seed: int, problem: Problem = problem, box: Any = (front, ideal, nadir)
        ) -> list[float]:
            began = time.perf_counter()
            objectives = objectives_in_order(problem, strategy, COUNTS[-1], seed)
            seconds, (best, low, high) = time.perf_counter() - began, box
            whole = hypervolume(best, low, high)
            return [*(100 * hypervolume(objectives[:count], low, high) / whole for count in COUNTS), seconds]

        for strategy in STRATEGY_NAMES:
            rows = [
                results.run(f"{latency} {strategy} {seed}", shares, strategy, seed)
                for seed in seeds_of(strategy, seeds)
            ]
            print_row(strategy, rows, (*[2] * len(COUNTS), 1))


def figure_4(results: Results, seeds: int, ofa: Path | None) -> None:
    """Print the hypervolume after few evaluations, as a share of what 70,000 find, for every strategy."""
    space, table, predictor = published()
    costs: dict[str, CostModel] = {"accuracy": predictor, "latency_ms": table.latency_ms}
    problem = Problem(space, costs, tuple(costs), real=tuple(costs))
    best = search_front(replace(problem, real=()))
    front = np.column_stack([-best.accuracy, best.latency_ms])
    ideal, nadir = front.min(axis=0), front.max(axis=0)
    whole = hypervolume(front, ideal, nadir)
    print_head("strategy", *(f"{count} evaluations" for count in FEW))

    def shares(strategy: str, seed: int) -> list[float]:
        found = [objectives_in_order(problem, strategy, count, seed) for count in FEW]
        return [100 * hypervolume(objectives, ideal, nadir) / whole for objectives in found]

    for strategy in STRATEGY_NAMES:
        rows = [results.run(f"{strategy} {seed}", shares, strategy, seed) for seed in seeds_of(strategy, seeds)]
        print_row(strategy, rows, [1] * len(FEW))


def figure_5(results: Results, seeds: int, ofa: Path | None) -> None:
    """Print the seconds of a search by evaluations and by devices, and pymoo's share of them."""
    space, table, predictor = published()
    rng = np.random.default_rng(0)
    others = [replace(table, part_ms=table.part_ms * rng.uniform(0.5, 2, table.part_ms.shape[1])) for _ in range(5)]
    print_head("search", "seconds", "of the processor", "of these pymoo's NSGA-II")

    def searched(devices: int, evaluations: int) -> list[float]:
        costs: dict[str, CostModel] = {"accuracy": predictor}
        costs |= {f"latency_ms@{number}": each.latency_ms for number, each in enumerate([table, *others][:devices])}
        problem = Problem(space, costs, tuple(costs))
        _, seconds, cpu = timed(lambda: search_front(problem, evaluations=evaluations))
        return [seconds, cpu, pymoo_seconds(problem, evaluations)]

    for devices, evaluations in cases():
        key = f"{devices} {evaluations}"
        devices_text = f"{devices} device{'s' if devices > 1 else ''}"
        rows = [results.run(f"{key} {run}", searched, devices, evaluations) for run in range(min(seeds, 3))]
        print_row(f"{devices_text}, {evaluations:,} evaluations", rows, (2, 2, 2))


def cases() -> Iterator[tuple[int, int]]:
    yield from ((1, evaluations) for evaluations in (1000, 10_000, 70_000, 300_000, 1_000_000))
    yield from ((devices, 70_000) for devices in (2, 3, 4, 5, 6))


def pymoo_seconds(problem: Problem, evaluations: int) -> float:
    """Return the processor's seconds that the NSGA-II of a search takes without its evaluations."""
    from edgenas.search.strategies import nsga2

    evaluator = Evaluator(problem, evaluations, "nsga2")
    evaluator(problem.first_genes)
    began, within = time.process_time(), 0.0
    apply = problem.evaluate

    def evaluate(genes: Genes) -> Vector:
        nonlocal within
        start = time.process_time()
        values = apply(genes)
        within += time.process_time() - start
        return values

    object.__setattr__(problem, "evaluate", evaluate)
    nsga2.evolve(problem, evaluator, budget=round(evaluations / 30), seed=0, progress=lambda done, total: None)
    return time.process_time() - began - within


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", type=int, choices=range(1, 6))
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--ofa", type=Path)
    arguments = parser.parse_args()
    if not os.environ.get("EDGENAS_DATA"):
        parser.error("EDGENAS_DATA must name the folder of published data")
    figures = (figure_1, figure_2, figure_3, figure_4, figure_5)
    figures[arguments.figure - 1](Results(arguments.out, arguments.figure), arguments.seeds, arguments.ofa)


if __name__ == "__main__":
    main()
