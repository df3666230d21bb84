"""The files of candidates: made as they would ship, evaluated on images here, and measured on their devices."""

from __future__ import annotations

from types import TracebackType

from edgenas.costs import Budget
from edgenas.devices import Target
from edgenas.export import check_parity, top1_accuracy
from edgenas.pipeline.choice import MeasuredSubnet
from edgenas.pipeline.export_formats import format_of
from edgenas.pipeline.file_accuracy import accuracy_on_test_images
from edgenas.pipeline.measurement_store import SETTINGS, MeasurementStore
from edgenas.pipeline.prepared_model import PreparedModel, prepare
from edgenas.pipeline.workspace import Workspace
from edgenas.space import Architecture


class CandidateFiles:
    """Makes files of candidates, evaluates and measures them.

    Use it as a context manager: leaving it closes the device. One device is held at a time, because two names may be
    one machine.

    Args:
        workspace: The run, whose lock is held.

    Raises:
        RunError: The weights were imported without images.
    """

    def __init__(self, workspace: Workspace) -> None:
        workspace.require_data()
        self._workspace = workspace
        self._prepared: PreparedModel | None = None  # of the last candidate
        self._store: tuple[Target, MeasurementStore] | None = None

    def __enter__(self) -> CandidateFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._store is not None:
            self._store[1].__exit__(kind, error, traceback)

    def evaluate(self, architecture: Architecture, target: Target) -> tuple[float, float]:
        """Return the accuracies on the validation images of the PyTorch subnet, and of its file for a target.

        Raises:
            VerificationError: The file is none that ``export`` would write: it loses more than its precision may.
            ModelError: The runtime refuses the file.
        """
        prepared, export_format = self._prepare(architecture), format_of(target)
        reference = prepared.parity_reference
        assert reference.labels is not None  # the run has images
        logits = export_format.runtime.run(prepared.build(export_format), reference.inputs)
        check_parity(reference.expected, logits, export_format.parity_precision)
        return top1_accuracy(reference.expected, reference.labels), top1_accuracy(logits, reference.labels)

    def measure(
        self, architecture: Architecture, target: Target, budget: Budget, accuracies: tuple[float, float]
    ) -> MeasuredSubnet:
        """Measure a candidate's file on a target; ``accuracies`` are those of ``evaluate``."""
        result = self._store_of(target).measure_reliably(self._prepare(architecture).build(format_of(target)))
        tail_ms = tail_interval_ms = None
        if budget.is_of_tail:
            tail_ms, *ends = result.percentile_with_interval_ms(budget.percentile)
            tail_interval_ms = (ends[0], ends[1])
        return MeasuredSubnet(
            subnet_accuracy=accuracies[0],
            accuracy=accuracies[1],
            latency_ms=result.median_ms,
            interval_ms=result.interval_ms,
            peak_bytes=result.peak_bytes,
            validity=str(result.validity),
            synthetic=result.synthetic,
            tail_ms=tail_ms,
            tail_interval_ms=tail_interval_ms,
        )

    def test_accuracy(self, architecture: Architecture, target: Target) -> float:
        """Return the accuracy of a candidate's file on the test images."""
        prepared, export_format = self._prepare(architecture), format_of(target)
        return accuracy_on_test_images(prepared, export_format, prepared.build(export_format))

    def _prepare(self, architecture: Architecture) -> PreparedModel:
        if self._prepared is None or self._prepared.architecture != architecture:
            self._prepared = prepare(self._workspace, architecture)
        return self._prepared

    def _store_of(self, target: Target) -> MeasurementStore:
        if self._store is None or self._store[0] != target:
            self.__exit__(None, None, None)
            log = self._workspace.measurement_log(target)
            self._store = target, MeasurementStore(log, target, SETTINGS)
        return self._store[1]
