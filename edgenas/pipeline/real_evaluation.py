"""Costs of a search that are measured instead of predicted: accuracy on images, latency and memory on the device."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import numpy as np

from edgenas.costs import CostModel, Genes, Vector
from edgenas.devices import Target, check_present
from edgenas.errors import UsageError
from edgenas.files import digest_of_inputs
from edgenas.pipeline.documents import EVALUATED, EvaluatedSubnets
from edgenas.pipeline.export_formats import format_of
from edgenas.pipeline.measurement_store import SETTINGS, MeasurementStore
from edgenas.pipeline.workspace import Workspace
from edgenas.profilers import MeasurementResult
from edgenas.search import EvaluationStore
from edgenas.search.quantities import ACCURACY, LATENCY, MEMORY
from edgenas.space import Architecture

MEASURABLE = (ACCURACY, LATENCY, MEMORY)


class RealCosts:
    """Measures costs of a run's architectures, each once; what was measured is kept in the run.

    Accuracy is that of the trained subnet on the validation images, with batch norm of its own. Latency and memory
    are those of its file on the target. Use it as a context manager: leaving it closes the device.

    Args:
        workspace: The run, whose lock is held.
        target: The target.
        names: What to measure: ``accuracy``, ``latency_ms``, ``peak_bytes``.

    Raises:
        UsageError: Something else is to be measured, or the device is known from imported tables only.
        RunError: The supernet is not trained, or its weights were imported without images.
    """

    def __init__(self, workspace: Workspace, target: Target, names: Sequence[str]) -> None:
        wrong = [name for name in names if name not in MEASURABLE]
        if wrong:
            raise UsageError(
                f"{wrong[0]} is counted exactly and needs no measuring; measure accuracy, latency or memory"
            )
        if set(names) - {ACCURACY}:
            check_present(target.profile)
        workspace.require_data()
        _ = workspace.trained  # raises before anything is evaluated
        self.inputs_digest = digest_of_inputs(workspace.weights_digest, target.to_dict(), SETTINGS.to_dict())
        self._workspace, self._names = workspace, names
        self._format = format_of(target)
        self._device = MeasurementStore(workspace.measurement_log(target), target, SETTINGS)
        self._accuracies = _read_accuracies(workspace)
        path = workspace.folder.evaluations(target.name, self.inputs_digest)
        self._store = EvaluationStore(path, workspace.space, self.inputs_digest)
        self._last: tuple[str, MeasurementResult] | None = None

    def __enter__(self) -> RealCosts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._device.__exit__(kind, error, traceback)

    @property
    def models(self) -> dict[str, CostModel]:
        """The cost models by the names of what they measure."""
        measure = {ACCURACY: self._accuracy, LATENCY: self._latency_ms, MEMORY: self._peak_bytes}
        return {name: self._store.cost_model(name, measure[name]) for name in self._names}

    def _accuracy(self, genes: Genes) -> Vector:
        architecture = self._workspace.space.decode(genes)[0]
        known = self._accuracies.get(architecture.id)
        return np.array([self._workspace.evaluator(architecture) if known is None else known])

    def _latency_ms(self, genes: Genes) -> Vector:
        return np.array([self._measure(self._workspace.space.decode(genes)[0]).median_ms])

    def _peak_bytes(self, genes: Genes) -> Vector:
        peak = self._measure(self._workspace.space.decode(genes)[0]).peak_bytes
        if peak is None:
            raise UsageError("the device does not say how much memory a model took; leave memory out of --measure")
        return np.array([float(peak)])

    def _measure(self, architecture: Architecture) -> MeasurementResult:
        if self._last is None or self._last[0] != architecture.id:
            from edgenas.pipeline.prepared_model import prepare

            model = prepare(self._workspace, architecture).build(self._format)
            self._last = architecture.id, self._device.measure_reliably(model)
        return self._last[1]


def _read_accuracies(workspace: Workspace) -> dict[str, float]:
    """Return what ``edgenas evaluate`` recorded of these weights, by id."""
    path = workspace.folder.evaluated
    if not path.exists():
        return {}
    recorded = EVALUATED.read_as(EvaluatedSubnets, path)
    return recorded.accuracy if recorded.inputs_digest == digest_of_inputs(workspace.weights_digest) else {}
