"""The step that searches the front of one or several targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgenas.accuracy import AccuracyPredictor, ReleasedPredictor
from edgenas.costs import CostModel, Genes
from edgenas.devices import Target
from edgenas.errors import UsageError
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


def search(workspace: Workspace, targets: Sequence[Target], options: SearchOptions) -> Front:
    """Search the front of one or several targets together from predictor and tables; skipped while these are the same.

    Each target gets the whole front, by its own latency: its own costs have their plain names, and those of the
    others end with their target's. The first target's is returned.
    """
    folder, progress = workspace.folder, workspace.progress
    names = [target.name for target in targets]
    paths = [folder.front(name) for name in names]
    with folder.writing(), ExitStack() as stack:  # from here on, so that predictor and tables stay those of the digest
        predictor, tables = load_predictor(workspace), [workspace.table(target) for target in targets]
        by_name = {names[0] if len(names) > 1 else "": tables[0], **dict(zip(names[1:], tables[1:], strict=True))}
        problem = make_problem(predictor, by_name, options.objectives, options.limits)
        inputs: list[Any] = list(options.beyond_default)
        if options.measured:
            real = stack.enter_context(_measure_costs(workspace, targets, options.measured))
            problem = replace(problem, costs={**problem.costs, **real.models}, real=list(real.models))
            inputs += [list(real.models), real.inputs_digest]
        predictor_sha256 = sha256_hex(read_bytes(find_predictor_file(workspace)))
        table_sha256, *others = (sha256_hex(read_bytes(folder.table(name))) for name in names)
        inputs += others
        inputs_digest = front_inputs_digest(predictor_sha256, table_sha256, options.seed, options.strategy, *inputs)
        source = _describe_imported(predictor, tables)
        if source:
            progress.say(f"search    {source}")
        earlier = [Front.load(path, workspace.space) if path.exists() else None for path in paths]
        if earlier[0] is not None and all(front and front.inputs_digest == inputs_digest for front in earlier):
            progress.say(f"search    already done ({len(earlier[0])} subnets on the front)")
            return earlier[0]
        for name, front in zip(names, earlier, strict=True):
            if front is not None:
                of_target = f" of {name}" if len(names) > 1 else ""
                progress.say(f"search    replaces the front{of_target} of {len(front)} subnets by {front.strategy}")
        with progress.step("search", 1.0) as bar:
            front = search_front(
                problem,
                target=", ".join(names),
                seed=options.seed,
                strategy=options.strategy,
                evaluations=options.most,
                inputs_digest=inputs_digest,
                source=source,
                on_progress=lambda done, total: bar(done / total),
            )
        if ACCURACY not in problem.real:
            front = add_accuracy_std(front, predictor)
        fronts = [front] if len(names) == 1 else [front_of_target(front, name) for name in names]
        for path, each in zip(paths, fronts, strict=True):
            each.save(path)
    return fronts[0]


def front_of_target(front: Front, target: str) -> Front:
    """Return the front of several targets for one of them, by its latency, its own costs under their plain names."""

    def rename(name: str) -> str:
        return name.removesuffix(f"@{target}")

    keys = [-front.accuracy, front[_with_target(LATENCY, target)]]
    order = np.lexsort(keys)
    return replace(
        front,
        target=target,
        genes=front.genes[order],
        values={rename(name): values[order] for name, values in front.values.items()},
        objectives=tuple(sorted(map(rename, front.objectives), key=lambda name: "@" in name)),
        limits={rename(name): limit for name, limit in front.limits.items()},
        measured=tuple(map(rename, front.measured)),
    )


def _measure_costs(workspace: Workspace, targets: Sequence[Target], words: Sequence[str]) -> RealCosts:
    """Return the costs that are measured; UsageError for those of a device where there are several."""
    names = [name_of_word(word) for word in words]
    if len(targets) > 1 and set(names) - {ACCURACY}:
        raise UsageError("latency and memory can be measured on one device at a time; search one, or predict them")
    return RealCosts(workspace, targets[0], names)


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


def _describe_imported(predictor: AccuracyPredictor | ReleasedPredictor, tables: Sequence[LatencyTable]) -> str:
    """Return what of a front comes from imported files instead of this run's measurements; empty for nothing."""
    sources = list(dict.fromkeys(table.source for table in tables if table.holdout is None))
    notes = []
    if sources:
        summed = " and ".join(sources)
        notes.append(f"latency is summed from {summed}, memory is counted from activations and weights")
    if isinstance(predictor, ReleasedPredictor):
        notes.append(
            "accuracy is by the Once-for-All authors' predictor for width 1.2: elsewhere only its order counts"
        )
    return "; ".join(notes)
