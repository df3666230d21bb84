"""The subnets that compete for a budget: those of all fronts, predicted for every target that they may run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from edgenas.accuracy import AccuracyPredictor
from edgenas.costs import Budget, CostModel, Genes, Vector
from edgenas.devices import Target
from edgenas.errors import BudgetError, UsageError
from edgenas.pipeline.choice import Prediction
from edgenas.pipeline.evaluate import load_predictor
from edgenas.pipeline.export_formats import format_of
from edgenas.pipeline.finetuned import find_best_versions
from edgenas.pipeline.search import reference_genes
from edgenas.pipeline.workspace import Workspace
from edgenas.profilers.measure.statistics import percentile
from edgenas.runtimes import is_runtime
from edgenas.search import AccuracyEstimates, Front, Problem, TargetPredictions, search_front
from edgenas.search.quantities import ACCURACY, LATENCY, MEMORY
from edgenas.space import Architecture, SearchSpace
from edgenas.units import format_bytes, format_ms

_UNKNOWN_MEMORY_ERROR = 0.1  # where the device does not report peak memory
_STD_BY_MEAN_ERROR = 1.2533  # of a normal distribution: standard deviation by mean absolute deviation
_JOINT_EVALUATIONS = 20_000
_TAIL_MEASUREMENTS = 100  # the first recorded ones, those of the table: later ones must change nothing


@dataclass(frozen=True, eq=False)
class SubnetPool:
    """The distinct subnets (N, G) that compete, what is known of their accuracies, and their predictions by device.

    ``devices`` has the names of the devices, ``predictions`` for each the predictions for its targets, and ``versions``
    the subnets with weights of their own, by row.
    """

    space: SearchSpace
    genes: Genes
    estimates: AccuracyEstimates
    devices: tuple[str, ...]
    predictions: tuple[tuple[TargetPredictions, ...], ...]
    versions: Mapping[int, Architecture] = field(default_factory=dict)

    def architecture(self, index: int) -> Architecture:
        """Return a subnet's architecture, with the weights that it would ship with."""
        if index in self.versions:
            return self.versions[index]
        return self.space.decode(self.genes[index : index + 1])[0]

    def predict(self, index: int, target: TargetPredictions) -> Prediction:
        """Return the prediction for a subnet on a target."""
        accuracy, std = (float(each[index]) for each in (self.estimates.predicted, self.estimates.std))
        return Prediction(accuracy, float(target.latency_ms[index]), float(target.peak_bytes[index]), std)

    def check_any_fits(self) -> None:
        """Raise BudgetError where no subnet is predicted to keep the budget of a device, or those of all."""
        every = [np.min([target.excess for target in targets], axis=0) for targets in self.predictions]
        for name, targets, excess in zip(self.devices, self.predictions, every, strict=True):
            if excess.min() > 1:
                raise BudgetError(self._describe_best(name, targets))
        joint = np.max(every, axis=0)
        if joint.min() > 1:
            nearest = int(joint.argmin())
            found = []
            for targets in self.predictions:
                best = min(targets, key=lambda target: float(target.excess[nearest]))
                found.append(f"{format_ms(best.latency_ms[nearest])} on {best.target} (budget: {best.budget})")
            raise BudgetError(
                f"no subnet is predicted to keep all budgets; the nearest, {self.architecture(nearest)}, takes"
                f" {' and '.join(found)}; raise a budget"
            )

    def _describe_best(self, device: str, targets: Sequence[TargetPredictions]) -> str:
        fastest = min(targets, key=lambda target: float(target.latency_ms.min()))
        smallest = min(targets, key=lambda target: float(target.peak_bytes.min()))
        first, least = int(fastest.latency_ms.argmin()), int(smallest.peak_bytes.argmin())
        where = f" on {fastest.target}" if len(targets) > 1 else ""
        return (
            f"no subnet meets the budget ({targets[0].budget}) on {device if where else fastest.target}: the fastest is"
            f" {self.architecture(first)} with {format_ms(fastest.latency_ms[first])}{where}, the one with the least"
            f" memory is {self.architecture(least)} with {format_bytes(smallest.peak_bytes[least])}; raise the budget"
            " (all predicted)"
        )


def make_pool(
    workspace: Workspace,
    devices: Mapping[str, Sequence[Target]],
    budgets: Mapping[Target, Budget],
    optimism: float,
) -> SubnetPool:
    """Return the subnets of the fronts of all targets, and for several devices those of a search for all together.

    Args:
        workspace: The run.
        devices: The targets of each device.
        budgets: The budget of each target.
        optimism: As of ``AccuracyEstimates``.

    Raises:
        BudgetError: No subnet is predicted to keep the budgets.
        UsageError: A budget is of a percentile, and no measurement tells how far it is from the median.
    """
    targets = [target for group in devices.values() for target in group]
    models = {target: _TargetModel(workspace, target, budgets[target]) for target in targets}
    fronts = {target: workspace.front(target) for target in targets}
    all_fronts = list(fronts.values())
    if len(devices) > 1:
        groups = {name: [models[target] for target in group] for name, group in devices.items()}
        all_fronts.append(_search_together(workspace, groups, np.concatenate([front.genes for front in all_fronts])))
    versions, gains = find_best_versions(workspace)
    own_genes = workspace.space.encode([version.inherited for version in versions])
    stacked = [*(front.genes for front in all_fronts), own_genes]
    genes, places = np.unique(np.concatenate(stacked), axis=0, return_inverse=True)
    *front_rows, own_rows = np.split(places.reshape(-1), np.cumsum([len(each) for each in stacked[:-1]]))
    accuracy, std = _predict_accuracy(workspace, genes)
    for front, rows in zip(all_fronts, front_rows, strict=True):
        if ACCURACY in front.measured:
            accuracy[rows], std[rows] = front.accuracy, 0.0
    # Both versions of a subnet compete; of equals the first is taken, that with weights of its own.
    genes = np.concatenate([own_genes, genes])
    accuracy = np.concatenate([np.minimum(accuracy[own_rows] + gains, 1.0), accuracy])
    predictions = {target: model.predict(genes) for target, model in models.items()}
    pool = SubnetPool(
        workspace.space,
        genes,
        AccuracyEstimates(accuracy, np.concatenate([std[own_rows], std]), optimism),
        tuple(devices),
        tuple(tuple(predictions[target] for target in group) for group in devices.values()),
        dict(enumerate(versions)),
    )
    pool.check_any_fits()
    return pool


def _predict_accuracy(workspace: Workspace, genes: Genes) -> tuple[Vector, Vector]:
    """Return predicted accuracies (N,) and their standard deviations, 0 where the predictor does not know them."""
    predictor = load_predictor(workspace)
    std = predictor.accuracy_std(genes) if isinstance(predictor, AccuracyPredictor) else np.zeros(len(genes))
    return predictor(genes), std


class _TargetModel:
    """What is predicted for any genes on one target, of the percentile that its budget limits."""

    def __init__(self, workspace: Workspace, target: Target, budget: Budget) -> None:
        self.target, self.budget = target, budget
        self.table = workspace.table(target)
        self._tail = find_tail_ratio(workspace, target, budget.percentile) if budget.is_of_tail else 1.0

    def latency_ms(self, genes: Genes) -> Vector:
        """Return the latencies (N,) of genes (N, G)."""
        return self._tail * self.table.latency_ms(genes)

    def peak_bytes(self, genes: Genes) -> Vector:
        """Return the peak memories (N,) of genes (N, G)."""
        return self.table.peak_bytes(genes)

    def predict(self, genes: Genes) -> TargetPredictions:
        """Return the predictions for genes (N, G) with their errors, which a published table does not know."""
        latency_ms, peak_bytes = self.latency_ms(genes), self.peak_bytes(genes)
        errors, memory_error, holdout = np.zeros(len(genes)), _UNKNOWN_MEMORY_ERROR, self.table.holdout
        if holdout is not None:
            errors = np.hypot(self.table.latency_std_ms(genes) / self.table.latency_ms(genes), holdout.drift)
            if holdout.memory_mape is not None:
                memory_error = _STD_BY_MEAN_ERROR * holdout.memory_mape
        return TargetPredictions(
            self.target.name,
            name_of_file_format(self.target),
            self.budget,
            latency_ms,
            errors,
            peak_bytes,
            memory_error,
        )


def name_of_file_format(target: Target) -> str:
    """Return the name of the format of the file that a target runs; that of the target where edgenas writes none."""
    return str(format_of(target)) if is_runtime(target.runtime) else target.name


def find_tail_ratio(workspace: Workspace, target: Target, percent: int) -> float:
    """Return how many times its median a percentile of a model's latencies is on a target, as its measurements say.

    Raises UsageError where none is recorded.
    """
    entries = workspace.measurement_log(target).entries[:_TAIL_MEASUREMENTS]
    runs = [entry.measurement.runs_ms for entry in entries if not entry.measurement.is_rejected]
    if not runs:
        raise UsageError(
            f"{target.name} has no measurements, so nothing is known about percentile {percent} of its latencies;"
            " leave out the percentile"
        )
    return median(percentile(each, percent) / median(each) for each in runs)


def _search_together(workspace: Workspace, groups: Mapping[str, Sequence[_TargetModel]], known: Genes) -> Front:
    """Return a front of subnets that are predicted to keep the budgets of all devices.

    The front of one device has subnets that are good there; a compromise between devices may be on none.
    """
    costs: dict[str, CostModel] = {ACCURACY: load_predictor(workspace)}
    limits: dict[str, float] = {}
    for name, models in groups.items():
        budget = models[0].budget
        if budget.latency is not None:
            costs[f"{LATENCY}@{name}"] = _least([model.latency_ms for model in models])
            limits[f"{LATENCY}@{name}"] = budget.latency_ms
        if budget.memory is not None:
            costs[f"{MEMORY}@{name}"] = _least([model.peak_bytes for model in models])
            limits[f"{MEMORY}@{name}"] = budget.memory_bytes
    known = np.concatenate([reference_genes(workspace.space), known])
    problem = Problem(workspace.space, costs, list(costs), limits, known=known)
    return search_front(problem, evaluations=_JOINT_EVALUATIONS + len(problem.first_genes))


def _least(models: Sequence[CostModel]) -> CostModel:
    """Return a cost model of the least cost on any of a device's targets."""
    return lambda genes: np.min([model(genes) for model in models], axis=0)
