"""The step that searches a target's front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgenas.accuracy import AccuracyPredictor, ReleasedPredictor
from edgenas.costs import CostModel, Genes
from edgenas.devices import Target
from edgenas.files import read_bytes, sha256_hex
from edgenas.pipeline.evaluate import find_predictor_file, load_predictor
from edgenas.pipeline.inputs_digests import front_inputs_digest
from edgenas.pipeline.real_evaluation import RealCosts
from edgenas.pipeline.workspace import Workspace
from edgenas.profilers import LatencyTable
from edgenas.registry import DEFAULT_STRATEGY
from edgenas.search import EVALUATIONS, Front, Problem, nondominated_mask, search_front
from edgenas.search.quantities import ACCURACY, LATENCY, MEMORY, name_of_word, parse_limit
from edgenas.space import SearchSpace

OBJECTIVES = ("accuracy", "latency", "memory")
ACCURACY_STD = "accuracy_std"
MEASURED_EVALUATIONS = 200  # by default, where costs are measured


@dataclass(frozen=True)
class SearchOptions:
    """What a search is asked for, in the words of the command line, as ``Run.search`` describes."""

    seed: int = 0
    strategy: str = DEFAULT_STRATEGY
    objectives: tuple[str, ...] = OBJECTIVES
    limits: Mapping[str, str] = field(default_factory=dict)
    evaluations: int | None = None
    measured: tuple[str, ...] = ()

    @property
    def most(self) -> int:
        """The number of architectures that may be evaluated."""
        default = MEASURED_EVALUATIONS if self.measured else EVALUATIONS
        return default if self.evaluations is None else self.evaluations

    @property
    def beyond_default(self) -> list[dict[str, Any]]:
        """What is not the default as plain data for a digest; empty for nothing."""
        limits = {name_of_word(word): parse_limit(name_of_word(word), text) for word, text in self.limits.items()}
        found = {"objectives": list(self.objectives), "limits": limits, "evaluations": self.most}
        default = {"objectives": list(OBJECTIVES), "limits": {}, "evaluations": EVALUATIONS}
        return [] if found == default else [found]


def search(workspace: Workspace, target: Target, options: SearchOptions) -> Front:
    """Search the front from predictor and table; skipped while these and the options are the same."""
    folder, progress = workspace.folder, workspace.progress
    path = folder.front(target.name)
    with folder.writing(), ExitStack() as stack:  # from here on, so that predictor and table stay those of the digest
        predictor, table = load_predictor(workspace), workspace.table(target)
        problem = make_problem(predictor, {"": table}, options.objectives, options.limits)
        inputs: list[Any] = list(options.beyond_default)
        if options.measured:
            names = [name_of_word(word) for word in options.measured]
            real = stack.enter_context(RealCosts(workspace, target, names))
            problem = replace(problem, costs={**problem.costs, **real.models}, real=names)
            inputs += [names, real.inputs_digest]
        predictor_sha256 = sha256_hex(read_bytes(find_predictor_file(workspace)))
        table_sha256 = sha256_hex(read_bytes(folder.table(target.name)))
        inputs_digest = front_inputs_digest(predictor_sha256, table_sha256, options.seed, options.strategy, *inputs)
        source = _describe_imported(predictor, table)
        if source:
            progress.say(f"search    {source}")
        if path.exists():
            front = Front.load(path, workspace.space)
            if front.inputs_digest == inputs_digest:
                progress.say(f"search    already done ({len(front)} subnets on the front)")
                return front
            progress.say(f"search    replaces the front of {len(front)} subnets by {front.strategy}")
        with progress.step("search", 1.0) as bar:
            front = search_front(
                problem,
                target=target.name,
                seed=options.seed,
                strategy=options.strategy,
                evaluations=options.most,
                inputs_digest=inputs_digest,
                source=source,
                on_progress=lambda done, total: bar(done / total),
            )
        if ACCURACY not in problem.real:
            front = add_accuracy_std(front, predictor)
        front.save(path)
    return front


def make_problem(
    predictor: AccuracyPredictor | ReleasedPredictor,
    tables: Mapping[str, LatencyTable],
    objectives: Sequence[str] = OBJECTIVES,
    limits: Mapping[str, str] | None = None,
) -> Problem:
    """Return the problem of a run, with predicted costs.

    Args:
        predictor: Predicts accuracy.
        tables: The latency tables by the names of their targets. The only table may have the name ``""``; with
            another, the names of latency and memory end with it, as in ``latency_ms@NAME``.
        objectives: What to optimise, in words such as ``latency``; those of a target, for each of the targets.
        limits: Limits as text with units, by the same words.

    Raises:
        UsageError: A word is unknown or given twice, or a limit has no unit.
    """
    space = predictor.space
    costs: dict[str, CostModel] = {ACCURACY: predictor}
    for target, table in tables.items():
        costs[_with_target(LATENCY, target)] = table.latency_ms
        costs[_with_target(MEMORY, target)] = table.peak_bytes
    costs |= {"macs": space.macs, "params": space.params, "weight_bytes": space.weight_bytes}

    def names(word: str) -> list[str]:
        stem = name_of_word(word)
        return [_with_target(stem, target) for target in tables] if stem in (LATENCY, MEMORY) else [stem]

    wanted = [name for word in objectives for name in names(word)]
    limited = {name: limit for word, limit in (limits or {}).items() for name in names(word)}
    known = reference_genes(space)
    if isinstance(predictor, AccuracyPredictor):
        known = np.concatenate([known, _best_evaluated(predictor, next(iter(tables.values())))])
    return Problem(space, costs, wanted, limited, known=known)


def add_accuracy_std(front: Front, predictor: AccuracyPredictor | ReleasedPredictor) -> Front:
    """Return a front with the standard deviations of its accuracies, where the predictor knows them."""
    if not isinstance(predictor, AccuracyPredictor):
        return front
    return replace(front, values={**front.values, ACCURACY_STD: predictor.accuracy_std(front.genes)})


def reference_genes(space: SearchSpace) -> Genes:
    """Return the smallest and the largest network at each resolution, (2 R, G): scaling without a search."""
    smallest, largest = np.array(space.smallest.genes), np.array(space.largest.genes)
    rows = np.repeat(np.array([smallest, largest]), len(space.resolutions), axis=0)
    rows[:, 0] = np.tile(np.arange(len(space.resolutions)), 2)
    return space.canonical(rows)


def reference_front(workspace: Workspace, target: Target) -> Front:
    """Return the networks of ``reference_genes`` with their predicted costs, to compare a front with."""
    predictor, table = load_predictor(workspace), workspace.table(target)
    genes = reference_genes(workspace.space)
    genes = genes[np.argsort(table.latency_ms(genes), kind="stable")]
    values = {ACCURACY: predictor(genes), LATENCY: table.latency_ms(genes), MEMORY: table.peak_bytes(genes)}
    return Front(workspace.space, target.name, genes, values, (ACCURACY, LATENCY), len(genes))


def _with_target(name: str, target: str) -> str:
    return f"{name}@{target}" if target else name


def _best_evaluated(predictor: AccuracyPredictor, table: LatencyTable) -> Genes:
    """Return the evaluated subnets that no other one beats in accuracy and latency."""
    costs = np.column_stack([-predictor.accuracy, table.latency_ms(predictor.genes)])
    return predictor.genes[nondominated_mask(costs)]


def _describe_imported(predictor: AccuracyPredictor | ReleasedPredictor, table: LatencyTable) -> str:
    """Return what of a front comes from imported files instead of this run's measurements; empty for nothing."""
    notes = []
    if table.holdout is None:
        notes.append(f"latency is summed from {table.source}, memory is counted from activations and weights")
    if isinstance(predictor, ReleasedPredictor):
        notes.append(
            "accuracy is by the Once-for-All authors' predictor for width 1.2: elsewhere only its order counts"
        )
    return "; ".join(notes)
