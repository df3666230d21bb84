"""The subnets of a latency table that were measured so far, and a fit of them that is extended batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgenas.costs import Genes, Vector
from edgenas.profilers import LatencyTable, Measurement
from edgenas.profilers.latency.drift import Moments
from edgenas.profilers.latency.fit import fit_part_costs, part_count_matrix
from edgenas.profilers.latency.gaussian_process import PartProcess
from edgenas.profilers.latency.prior import Observations
from edgenas.space import SearchSpace

# Variances are estimated again when there are so many times as many subnets, because that takes seconds.
_GROWTH = 1.25


class TableSamples:
    """Measured subnets, batch by batch in the order of measuring; some are held out and never fitted.

    All results depend only on the batches that were added, so that an interrupted step comes to the same when it
    resumes.

    Args:
        space: The search space.
        target: The target's name, for the table.
        inputs_digest: The digest of the table's inputs.
        source_tables: Tables of other targets.
    """

    def __init__(
        self,
        space: SearchSpace,
        target: str,
        inputs_digest: str,
        source_tables: Sequence[LatencyTable] = (),
    ) -> None:
        self._space, self._source_tables = space, source_tables
        self._target, self._inputs_digest = target, inputs_digest
        self._costs = tuple(source.source_costs_for(space) for source in source_tables)
        self._measurements: list[Measurement] = []
        self._ends: list[int] = []
        self._fitted: tuple[int, PartProcess] | None = None
        self._process: PartProcess | None = None
        self._table: LatencyTable | None = None
        self.genes: Genes = np.empty((0, len(space.genes)), dtype=np.int64)
        self.held_out: npt.NDArray[np.bool_] = np.empty(0, dtype=np.bool_)

    def __len__(self) -> int:
        return len(self._measurements)

    def add(self, genes: Genes, held_out: Sequence[bool], measurements: Sequence[Measurement]) -> None:
        """Add a batch (N, G) with its raw measurements."""
        self._process = self._table = None
        self._measurements += measurements
        self._ends.append(len(self._measurements))
        self.genes = np.vstack([self.genes, genes])
        self.held_out = np.append(self.held_out, np.array(held_out, dtype=np.bool_))

    @property
    def device_s(self) -> float:
        """Device time of all measurements, seconds."""
        return sum(each.device_s for each in self._measurements)

    @property
    def rejected(self) -> list[Measurement]:
        """The measurements that are rejected."""
        return [each for each in self._measurements if each.is_rejected]

    def process(self) -> PartProcess:
        """Return the Gaussian process of all but the held-out subnets; variances were estimated from most of them."""
        if self._process is None:
            self._process = self._extend_fit()
        return self._process

    def _extend_fit(self) -> PartProcess:
        if self._fitted is None or self._variances_count() > self._fitted[0]:
            self._fitted = self._variances_count(), self._fit_first(self._variances_count())
        count, fitted = self._fitted
        if count == len(self):
            return fitted
        genes, latency, moments = self._select_fitted(len(self))
        known = fitted.observations.weights
        weights = np.append(known, np.ones(len(genes) - len(known)))
        observations = Observations(part_count_matrix(self._space, genes), latency, moments, weights)
        return replace(fitted, observations=observations)

    def holdout_errors(self) -> Vector:
        """Return the errors of the held-out subnets, predicted / measured - 1."""
        process, genes = self.process(), self.genes[self.held_out]
        measured = np.array([each.median_ms for each in self._measurements])[self.held_out]
        predicted = process.predict(part_count_matrix(self._space, genes))
        return np.asarray(predicted / measured - 1)

    def table(self) -> LatencyTable:
        """Return the table that is fitted to all subnets but the held-out ones."""
        if self._table is None:
            self._table = LatencyTable.fit(
                self._space,
                self._target,
                self.genes,
                self._measurements,
                self.held_out,
                self._inputs_digest,
                self._source_tables,
            )
        return self._table

    def _variances_count(self) -> int:
        """Return the number of subnets that variances are estimated from: the end of a batch, renewed by growth."""
        last = self._ends[0]
        for end in self._ends[1:]:
            last = end if end >= _GROWTH * last else last
        return last

    def _fit_first(self, count: int) -> PartProcess:
        return fit_part_costs(self._space, *self._select_fitted(count), self._costs)

    def _select_fitted(self, count: int) -> tuple[Genes, Vector, Moments]:
        """Return genes, latencies in ms and moments of the first ``count`` subnets that are not held out."""
        seen = np.flatnonzero(~self.held_out[:count])
        kept = [self._measurements[place] for place in seen]
        latency = np.array([each.median_ms for each in kept])
        return self.genes[seen], latency, Moments.of(kept)
