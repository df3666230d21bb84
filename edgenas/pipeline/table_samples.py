"""The subnets of a latency table that were measured so far, and what they say before the table is made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgenas.costs import Genes, Vector
from edgenas.pipeline.measurement_store import MeasurementStore
from edgenas.profilers import LatencyTable, Measurement
from edgenas.profilers.latency.fit import count_parts, fit_parts, remembered, restored_parts
from edgenas.profilers.latency.gaussian_process import PartProcess
from edgenas.space import SearchSpace

# The strengths of a process are estimated again when so many times as many subnets are there: it takes seconds.
_GROWTH = 1.25


class Samples:
    """Measured subnets, batch by batch in the order of measuring; some are held out and never fitted.

    Whatever it says follows from the batches that were added and what the
    reference model had shown by then, so that a step that was killed comes to
    the same. ``others``: tables of other targets.
    """

    def __init__(self, space: SearchSpace, measurer: MeasurementStore, others: Sequence[LatencyTable] = ()) -> None:
        self._space, self._measurer, self._others = space, measurer, others
        self._costs = tuple(other.costs_for(space) for other in others)
        self._measurements: list[Measurement] = []
        self._ends: list[int] = []
        self._fitted: tuple[int, PartProcess] | None = None
        self._process: PartProcess | None = None
        self._corrections: dict[int, list[Measurement]] = {}
        self.genes: Genes = np.empty((0, len(space.genes)), dtype=np.int64)
        self.held_out: npt.NDArray[np.bool_] = np.empty(0, dtype=np.bool_)

    def __len__(self) -> int:
        return len(self._measurements)

    def add(self, genes: Genes, held_out: Sequence[bool], measurements: Sequence[Measurement]) -> None:
        """Take in a batch (N, G), as it was taken."""
        self._process = None
        self._corrections.clear()
        self._measurements += measurements
        self._ends.append(len(self._measurements))
        self.genes = np.vstack([self.genes, genes])
        self.held_out = np.append(self.held_out, np.array(held_out, dtype=np.bool_))

    @property
    def device_s(self) -> float:
        """Device time that they took, with the reference model between them."""
        references = self._measurer.reference_measurements(self._until(len(self)))
        return sum(each.device_s for each in (*self._measurements, *references))

    @property
    def rejected(self) -> list[Measurement]:
        """Those that cannot be trusted."""
        return [each for each in self._corrected(len(self)) if each.rejected]

    def process(self) -> PartProcess:
        """What all but the held-out say, with strengths that were estimated from most of them."""
        if self._process is None:
            self._process = self._extended()
        return self._process

    def _extended(self) -> PartProcess:
        if self._fitted is None or self._anchor() > self._fitted[0]:
            self._fitted = self._anchor(), self._fit(self._anchor())
        count, fitted = self._fitted
        if count == len(self):
            return fitted
        genes, latency, at_s = self._seen(len(self))
        known = remembered(fitted)
        weights = np.append(known["weights"], np.ones(len(genes) - len(known["weights"])))
        data = {**known, "latency_ms": latency, "at_s": at_s, "weights": weights}
        return restored_parts(self._space, genes, data, self._costs)

    def errors(self) -> Vector:
        """Of the held-out subnets as the process predicts them: predicted / measured - 1."""
        process, genes = self.process(), self.genes[self.held_out]
        measured = np.array([each.median_ms for each in self._corrected(len(self))])[self.held_out]
        predicted = process.predict(count_parts(self._space, genes))
        return np.asarray(predicted / measured - 1)

    def table(self, target: str, inputs_digest: str) -> LatencyTable:
        """The table of all of them."""
        references = self._measurer.reference_measurements(self._until(len(self)))
        measurements = self._corrected(len(self))
        return LatencyTable.fit(
            self._space, target, self.genes, measurements, self.held_out, inputs_digest, self._others, references
        )

    def _anchor(self) -> int:
        """How many subnets there were when strengths were last due: from the first end of a batch on, by growth."""
        last = self._ends[0]
        for end in self._ends[1:]:
            last = end if end >= _GROWTH * last else last
        return last

    def _fit(self, count: int) -> PartProcess:
        return fit_parts(self._space, *self._seen(count), self._costs)

    def _seen(self, count: int) -> tuple[Genes, Vector, Vector]:
        """Genes, latencies in ms and times of the first so many that are not held out."""
        seen = np.flatnonzero(~self.held_out[:count])
        measurements = self._corrected(count)
        kept = [measurements[place] for place in seen]
        latency = np.array([each.median_ms for each in kept])
        return self.genes[seen], latency, np.array([each.taken_s for each in kept])

    def _corrected(self, count: int) -> list[Measurement]:
        """The first so many, with the drift that the reference had shown by then."""
        if count not in self._corrections:
            found = self._measurer.correct_drift(self._measurements[:count], self._until(count))
            self._corrections[count] = found
        return self._corrections[count]

    def _until(self, count: int) -> float:
        return max((each.taken_s for each in self._measurements[:count]), default=0.0)
